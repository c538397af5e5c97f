//! The service's API as a client sees it: a real server on loopback, good requests and bad ones.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::service::{Answer, FORM, Service, form, request, tenants};
use serde_json::{Value, json};
use veriscope::report::Report;

const NO_AUTH: &[&str] = &["--no-auth"];

fn picture() -> Vec<u8> {
    std::fs::read(common::root().join("demo/label-intact.png")).unwrap()
}

/// A small PNG of one grey, so that different greys are different contents.
fn grey(dir: &std::path::Path, level: u8) -> Vec<u8> {
    let source = format!("color=c=0x{level:02x}{level:02x}{level:02x}:s=64x64:d=0.04");
    let path = dir.join(format!("grey-{level}.png"));
    std::fs::read(common::ffmpeg(&["-f", "lavfi", "-i", &source, "-frames:v", "1"], path)).unwrap()
}

fn id(job: &Value) -> String {
    job["id"].as_str().unwrap().to_string()
}

#[test]
fn an_upload_becomes_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let server = Service::start(&dir.path().join("data"), NO_AUTH);
    let fields = [("priority", "live"), ("reference", "post 7"), ("declared_ai", "false")];
    let accepted = server.upload(&[], &fields, &picture());
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let job = accepted.value();
    let id = id(&job);
    assert_eq!(accepted.header("location"), Some(format!("/v1/jobs/{id}").as_str()));
    assert_eq!((&job["priority"], &job["reference"]), (&json!("live"), &json!("post 7")));

    // The stream of events follows it to its end.
    let events = server.get(&format!("/v1/jobs/{id}/events"));
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    let text = events.text();
    assert!(text.starts_with("event: state\ndata: {\"state\":"), "{text}");
    assert!(
        text.ends_with("event: state\ndata: {\"state\":\"done\"}\n\nevent: done\ndata: {}\n\n"),
        "{text}"
    );

    let done = server.ended(&[], &id);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(done["outcome"]["action"], "review", "{done}");
    assert_eq!(done["outcome"]["disposition"], "confirmed", "{done}");
    assert!(done["outcome"]["policy_version"].as_str().unwrap().contains('+'), "{done}");
    assert_eq!(done["has_media"], false, "originals are deleted at once: {done}");
    server.get(&format!("/v1/jobs/{id}/media")).problem(404, "not_found");
    server.expect_no_uploads();

    // The report is that of `scan`.
    let report: Report =
        serde_json::from_value(server.get(&format!("/v1/report/{id}")).ok()).unwrap();
    let path = common::root().join("demo/label-intact.png");
    let scan = common::scan(&[&"--detectors", &"label-strip", &"--device", &"cpu", &path]);
    let mut expected = scan.report("label-intact.png").clone().with_path("a.bin");
    expected.timings = report.timings.clone();
    assert_eq!(report, expected);
    let page = server.get(&format!("/v1/report/{id}?format=html&lang=zh"));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(page.text().contains("<html lang=\"zh-CN\">"), "{}", page.text());
    let accept = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = server.call("GET", &format!("/v1/report/{id}"), &accept, b"");
    assert!(page.text().contains("<html lang=\"en\">"), "{}", page.text());
    // Labels have no heat maps.
    server.get(&format!("/v1/jobs/{id}/heat-maps/0.jpg")).problem(404, "not_found");

    let previews = server.get(&format!("/v1/jobs/{id}/previews")).ok();
    let file = previews["thumbnails"][0]["file"].as_str().unwrap();
    let thumbnail = server.get(&format!("/v1/jobs/{id}/previews/{file}"));
    assert_eq!((thumbnail.status, thumbnail.header("content-type")), (200, Some("image/jpeg")));
    assert!(thumbnail.body.starts_with(&[0xff, 0xd8, 0xff]));

    // The same content again is answered from the store.
    let again = server.upload(&[], &[], &picture());
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!((&again.value()["reused"], &again.value()["state"]), (&json!(true), &json!("done")));

    // Decided, listed, deleted.
    let body = json!({ "verdict": "block", "fake": true, "note": "seen before" });
    let decided = server.json(&format!("/v1/jobs/{id}/decision"), &body).ok();
    assert_eq!(decided["decision"]["verdict"], "block");
    let listed = server.get(&format!("/v1/jobs/{id}/decisions")).ok();
    assert_eq!(listed["decisions"][0]["note"], "seen before");
    let open = server.get("/v1/jobs?decided=false&state=done").ok();
    assert_eq!(open["jobs"].as_array().unwrap().len(), 1, "{open}");
    let found = server.get("/v1/jobs?q=POST+7").ok();
    assert_eq!(found["jobs"][0]["id"], id.as_str(), "{found}");
    let path = format!("/v1/jobs/{id}");
    assert_eq!(server.call("DELETE", &path, &[], b"").status, 204);
    server.get(&path).problem(404, "not_found");
    server.get(&format!("/v1/report/{id}")).problem(404, "not_found");
    server.call("DELETE", &path, &[], b"").problem(404, "not_found");
    let audit = server.get(&format!("/v1/audit?job={id}")).ok();
    let what: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().map(|e| e["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["job.deleted", "job.decided", "job.done", "job.accepted"]);
}

#[test]
fn repeated_requests_make_one_job_and_pages_show_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Service::start(&dir.path().join("data"), NO_AUTH);
    let key = [("Idempotency-Key", "k-1")];
    let first = server.upload(&key, &[("reference", "a")], &picture());
    assert_eq!(first.status, 202);
    let again = server.upload(&key, &[("reference", "a")], &picture());
    assert_eq!((again.status, id(&again.value())), (200, id(&first.value())));
    for (fields, file) in
        [(&[("reference", "b")][..], picture()), (&[("reference", "a")], grey(dir.path(), 9))]
    {
        server.upload(&key, fields, &file).problem(409, "idempotency_conflict");
    }
    server.ended(&[], &id(&first.value()));
    server.expect_no_uploads();

    let mut ids = vec![id(&first.value())];
    for level in 0..5 {
        let job = server.upload(&[], &[("priority", "batch")], &grey(dir.path(), 10 * level)).ok();
        ids.push(id(&job));
    }
    ids.reverse();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/v1/jobs?limit=4{cursor}")).ok();
        let jobs = page["jobs"].as_array().unwrap();
        assert!(jobs.len() <= 4);
        seen.extend(jobs.iter().map(id));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ids, "newest first");
    for id in &ids {
        assert_eq!(server.ended(&[], id)["state"], "done");
    }
}

#[test]
fn bad_requests_are_refused_with_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Service::start(&dir.path().join("data"), NO_AUTH);
    let png = grey(dir.path(), 100);
    let post =
        |kind: &str, body: &[u8]| server.call("POST", "/v1/jobs", &[("Content-Type", kind)], body);

    // What is no media.
    for (status, code, file) in [
        (415, "unsupported_media", &b"<!DOCTYPE html><p>hello</p>"[..]),
        (415, "unsupported_media", b"PK\x03\x04 an archive, perhaps a bomb"),
        (415, "unsupported_media", b"\x7fELF\x02\x01\x01 a program"),
        (415, "unsupported_media", b""),
    ] {
        server.upload(&[], &[], file).problem(status, code);
    }
    // Forms that are none.
    let whole = form(&[], "a.png", &png);
    post(FORM, &whole[..whole.len() - 20]).problem(400, "malformed_multipart");
    post(FORM, &whole[..100]).problem(400, "malformed_multipart");
    post(FORM, b"no form at all").problem(400, "malformed_multipart");
    post(FORM, b"").problem(400, "malformed_multipart");
    post("multipart/form-data", &whole).problem(400, "malformed_multipart");
    post(&format!("multipart/form-data; boundary={}", "x".repeat(80)), &whole)
        .problem(400, "malformed_multipart");
    post(FORM, b"------bound--\r\n").problem(400, "missing_file");
    let latin = b"------bound\r\nContent-Disposition: form-data; name=\"reference\"\r\n\r\n\xff\xfe\r\n------bound--";
    post(FORM, latin).problem(400, "bad_parameter");
    for fields in [
        &[("priority", "urgent")][..],
        &[("priority", "LIVE")],
        &[("priority", "live"), ("priority", "live")],
        &[("declared_ai", "maybe")],
        &[("colour", "red")],
        &[("reference", "line\nbreak")],
    ] {
        server.upload(&[], fields, &png).problem(400, "bad_parameter");
    }
    server.upload(&[], &[("reference", &"x".repeat(257))], &png).problem(400, "bad_parameter");
    server.upload(&[], &[("reference", &"x".repeat(9000))], &png).problem(400, "bad_parameter");
    for key in ["", "with space", &"k".repeat(256)] {
        server.upload(&[("Idempotency-Key", key)], &[], &png).problem(400, "bad_parameter");
    }
    // Other types.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "image/png", "multipart/mixed"]
    {
        post(kind, &png).problem(415, "unsupported_content_type");
    }
    server.call("POST", "/v1/jobs", &[], b"").problem(415, "unsupported_content_type");
    // JSON that is none, or asks for what is not given.
    for (code, body) in [
        ("bad_json", &b"{"[..]),
        ("bad_json", b"\xff\xfe{}"),
        ("bad_json", b"[]"),
        ("bad_json", b"{}"),
        ("bad_json", b"{\"url\": 7}"),
        ("bad_json", b"{\"url\": \"http://a.example/\", \"path\": \"/a\"}"),
        ("bad_json", b"{\"url\": \"http://a.example/\", \"colour\": 1}"),
        ("bad_json", b"{\"url\": \"http://a.example/\", \"priority\": \"urgent\"}"),
        ("bad_parameter", b"{\"url\": \"file:///etc/passwd\"}"),
        ("bad_parameter", b"{\"url\": \"gopher://a.example/\"}"),
        ("bad_parameter", b"{\"url\": \"http://user:pass@a.example/\"}"),
        ("bad_parameter", b"{\"url\": \"//\"}"),
    ] {
        post("application/json", body).problem(400, code);
    }
    let deep = "[".repeat(100_000);
    post("application/json", deep.as_bytes()).problem(400, "bad_json");
    post("application/json", &[b' '; 300 << 10]).problem(413, "too_large");
    for path in ["/etc/passwd", "../../etc/passwd", "", "/", "data/uploads", "/proc/self/environ"] {
        server.json("/v1/jobs", &json!({ "path": path })).problem(403, "path_not_allowed");
    }
    // Parameters.
    for query in [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=99999999999999999999999",
        "limit=1e3",
        "limit=",
        "cursor=x",
        "cursor=%ff",
        "state=sleeping",
        "state=done&state=done",
        "decided=2",
        "detector=mood",
        "sort=asc",
        "q=%ff%fe",
        &format!("q={}", "x".repeat(257)),
    ] {
        server.get(&format!("/v1/jobs?{query}")).problem(400, "bad_parameter");
    }
    // Ids and files that are none.
    for path in [
        "/v1/jobs/x",
        "/v1/jobs/%ff",
        "/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/v1/jobs/99999999999999999999999999999999999999",
        "/v1/jobs/00000000-0000-7000-8000-000000000000",
        "/v1/jobs/00000000-0000-7000-8000-000000000000/events",
        "/v1/jobs/00000000-0000-7000-8000-000000000000/media",
        "/v1/jobs/00000000-0000-7000-8000-000000000000/previews",
        "/v1/report/00000000-0000-7000-8000-000000000000",
        "/v1/report/x",
        "/v2/jobs",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e%2fCargo.toml",
        "/etc/passwd",
    ] {
        server.get(path).problem(404, "not_found");
    }
    let job = id(&server.upload(&[], &[], &png).ok());
    for file in
        ["index.json", "..%2findex.json", "%2e%2e%2f%2e%2e%2fserve.sqlite", "none.jpg", "a%00.jpg"]
    {
        server.get(&format!("/v1/jobs/{job}/previews/{file}")).problem(404, "not_found");
    }
    for (method, path) in [("PUT", "/v1/jobs"), ("PATCH", "/v1/session"), ("BREW", "/healthz")] {
        let answer = server.call(method, path, &[], b"");
        answer.problem(405, "method_not_allowed");
        assert!(answer.header("allow").unwrap().contains("GET"), "{path}");
    }
    server.ended(&[], &job);
    let decision = format!("/v1/jobs/{job}/decision");
    for body in [json!({}), json!({ "verdict": "maybe" }), json!({ "verdict": "allow", "x": 1 })] {
        server.json(&decision, &body).problem(400, "bad_json");
    }
    let long = json!({ "verdict": "allow", "note": "x".repeat(4001) });
    server.json(&decision, &long).problem(400, "bad_parameter");
    server.call("POST", &decision, &[], b"{}").problem(415, "unsupported_content_type");
    let toml = [("Content-Type", "application/toml")];
    server.call("POST", "/v1/policies/dry-run", &toml, b"version = 7").problem(422, "bad_policy");
    server.call("POST", "/v1/policies/dry-run", &toml, b"\xff").problem(422, "bad_policy");

    // Other sites' pages in a browser on this machine.
    let evil = [("Origin", "https://evil.example")];
    server.upload(&evil, &[], &png).problem(403, "cross_site");
    server.call("GET", "/v1/jobs", &[("Host", "evil.example")], b"").problem(403, "cross_site");

    // A name that is a path names nothing.
    let body = form(&[], "../../../../tmp/evil.png", &grey(dir.path(), 101));
    let accepted = post(FORM, &body).ok();
    assert_eq!(accepted["source"]["name"], "evil.png");
    server.ended(&[], &id(&accepted));
    server.expect_no_uploads();
    assert!(server.get("/readyz").status == 200 && server.get("/healthz").status == 200);
}

#[test]
fn requests_that_break_the_protocol_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Service::start(&dir.path().join("data"), NO_AUTH);
    let many =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    server.raw(many.as_bytes()).problem(431, "headers_too_large");
    let long =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\na: {}\r\n\r\n", "b".repeat(200_000));
    server.raw(long.as_bytes()).problem(431, "headers_too_large");
    let far = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000));
    assert!(matches!(server.raw(far.as_bytes()).status, 414 | 431));
    for bad in [
        &b"hello\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\xff\xff\xff\xff\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ] {
        server.raw(bad).problem(400, "bad_request");
    }
    // A length and chunks at once is how requests are smuggled; hyper takes the chunks and closes.
    let both = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
        Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n";
    let answers = String::from_utf8_lossy(
        &Answer::read({
            let mut stream = server.connect();
            stream.write_all(both).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        })
        .body,
    )
    .matches("HTTP/1.1")
    .count();
    assert_eq!(answers, 0, "nothing behind the chunks is taken for a request's answer");
    let chunked = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {FORM}\r\n\
         Transfer-Encoding: chunked\r\n\r\nZZ\r\n"
    );
    server.raw(chunked.as_bytes()).problem(400, "truncated_body");
    // More than a body may have is refused before it is sent.
    let huge = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {}\r\n\r\n",
        1u64 << 50
    );
    server.raw(huge.as_bytes()).problem(413, "too_large");
    assert_eq!(server.get("/healthz").status, 200);
}

/// A form's request of which only a part is sent.
fn begun(server: &Service, headers: &[(&str, &str)], sent: usize) -> TcpStream {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.resize(2 << 20, 7);
    let headers = [&[("Content-Type", FORM)], headers].concat();
    let all = request("POST", "/v1/jobs", &headers, &form(&[], "a.png", &file));
    let mut stream = server.connect();
    stream.write_all(&all[..sent]).unwrap();
    stream
}

fn wait_for_uploads(server: &Service, n: usize) {
    let until = Instant::now() + Duration::from_secs(30);
    while server.uploads().len() != n {
        assert!(Instant::now() < until, "{:?}", server.uploads());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_that_go_away_or_dawdle_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Service::start(&dir.path().join("data"), &["--no-auth", "--max-uploads", "4"]);
    // Cut in the middle; the answer can still be read.
    let cut = begun(&server, &[], 1 << 20);
    cut.shutdown(Shutdown::Write).unwrap();
    Answer::read(cut).problem(400, "truncated_body");
    server.expect_no_uploads();
    // Gone, again and again: their places are free again.
    for _ in 0..12 {
        let gone = begun(&server, &[], 1 << 20);
        wait_for_uploads(&server, 1);
        drop(gone);
        server.expect_no_uploads();
    }
    // All places taken by uploads that stand still: the next is told when to come again.
    let slow: Vec<TcpStream> = (0..4).map(|_| begun(&server, &[], 1 << 20)).collect();
    wait_for_uploads(&server, 4);
    server.upload(&[], &[], &picture()).problem(503, "busy");
    // Meanwhile a head that never ends, and one that never begins.
    let mut head = server.connect();
    head.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").unwrap();
    let silent = server.connect();
    // They are ended, and what they sent is gone.
    for stream in slow {
        Answer::read(stream).problem(408, "too_slow");
    }
    for stream in [head, silent] {
        assert_eq!(Answer::read(stream).status, 0);
    }
    server.expect_no_uploads();
    // One byte now and then is not enough either: see the pace in the unit tests. And it still works:
    assert_eq!(server.upload(&[], &[], &picture()).status, 202);
}

#[test]
fn one_tenants_uploads_leave_places_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let keys = ["one", "two"].map(|tenant| {
        tenants(&data, &["set", tenant]);
        bearer(&tenants(&data, &["add-key", tenant, "all"]))
    });
    let [one, two] = keys.each_ref().map(|key| [("Authorization", key.as_str())]);
    let server = Service::start(&data, &["--max-uploads", "4"]);
    let mut slow: Vec<TcpStream> = (0..3).map(|_| begun(&server, &one, 1 << 20)).collect();
    wait_for_uploads(&server, 3);
    let refused = server.upload(&one, &[], &picture());
    let problem = refused.problem(503, "busy");
    assert!(problem["detail"].as_str().unwrap().contains("of this tenant"), "{problem}");
    assert_eq!(server.upload(&two, &[], &picture()).status, 202);
    // The last place is for whoever comes first.
    slow.push(begun(&server, &two, 1 << 20));
    wait_for_uploads(&server, 4);
    let problem = server.upload(&two, &[], &picture()).problem(503, "busy");
    assert!(!problem["detail"].as_str().unwrap().contains("tenant"), "{problem}");
    // One that is broken off makes room for the next of its tenant.
    drop(slow.remove(0));
    wait_for_uploads(&server, 3);
    let until = Instant::now() + Duration::from_secs(20);
    while server.upload(&one, &[], &picture()).status == 503 {
        assert!(Instant::now() < until, "its place is not free again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn too_many_connections_are_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Service::start(&dir.path().join("data"), &["--no-auth", "--max-connections", "3"]);
    let mut held: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    for stream in &mut held {
        // Answered and kept open, so that they are surely counted.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    server.get("/healthz").problem(503, "busy");
    drop(held);
    let until = Instant::now() + Duration::from_secs(20);
    while server.get("/healthz").status != 200 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[test]
fn tenants_see_their_own_and_keys_do_what_they_may() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for tenant in ["one", "two"] {
        tenants(&data, &["set", tenant]);
    }
    let all = tenants(&data, &["add-key", "one", "all", "--scopes", "submit,read,review,admin"]);
    let (reader, other) = (
        tenants(&data, &["add-key", "one", "reader", "--scopes", "read"]),
        tenants(&data, &["add-key", "two", "all", "--scopes", "submit,read,review,admin"]),
    );
    assert!(all.starts_with("vs_") && all.len() == 46 && all != other);
    let database = std::fs::read(data.join("serve.sqlite")).unwrap();
    let wal = std::fs::read(data.join("serve.sqlite-wal")).unwrap_or_default();
    for bytes in [database, wal] {
        assert!(!bytes.windows(43).any(|w| w == &all.as_bytes()[3..]), "keys are stored hashed");
    }
    let server = Service::start(&data, &[]);
    let (all, reader, other) = (bearer(&all), bearer(&reader), bearer(&other));
    let one = [("Authorization", all.as_str())];
    let two = [("Authorization", other.as_str())];

    for headers in [
        &[][..],
        &[("Authorization", "Bearer vs_wrong")],
        &[("Authorization", "Basic dXNlcjpwYXNz")],
        &[("Authorization", "Bearer")],
        &[("Authorization", "\u{ff}")],
        &[("Cookie", "veriscope_session=vs_wrong")],
    ] {
        let answer = server.call("GET", "/v1/jobs", headers, b"");
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        server.upload(headers, &[], &picture()).problem(
            if headers.first().is_some_and(|(name, _)| *name == "Cookie") { 403 } else { 401 },
            if headers.first().is_some_and(|(name, _)| *name == "Cookie") {
                "cross_site"
            } else {
                "unauthorized"
            },
        );
    }
    assert_eq!(server.get("/healthz").status, 200);

    // Another tenant's job is not there, whatever is asked of it.
    let job = id(&server.upload(&one, &[], &picture()).ok());
    server.ended(&one, &job);
    for (method, path, body) in [
        ("GET", "", ""),
        ("DELETE", "", ""),
        ("GET", "/events", ""),
        ("GET", "/media", ""),
        ("GET", "/previews", ""),
        ("GET", "/previews/thumb-000.jpg", ""),
        ("GET", "/decisions", ""),
        ("GET", "/deliveries", ""),
        ("POST", "/decision", "{\"verdict\": \"allow\"}"),
    ] {
        let headers = [two[0], ("Content-Type", "application/json")];
        let answer =
            server.call(method, &format!("/v1/jobs/{job}{path}"), &headers, body.as_bytes());
        answer.problem(404, "not_found");
        let none = format!("/v1/jobs/00000000-0000-7000-8000-000000000000{path}");
        let none = server.call(method, &none, &headers, body.as_bytes());
        assert_eq!(answer.text(), none.text(), "nothing tells them apart");
    }
    server.call("GET", &format!("/v1/report/{job}"), &two, b"").problem(404, "not_found");
    let theirs = server.call("GET", "/v1/jobs", &two, b"").ok();
    assert_eq!(theirs["jobs"], json!([]));
    // The same content is another tenant's own affair, too.
    assert_eq!(server.upload(&two, &[], &picture()).status, 202);

    // Scopes.
    let read = [("Authorization", reader.as_str())];
    assert_eq!(server.call("GET", "/v1/jobs", &read, b"").status, 200);
    server.upload(&read, &[], &picture()).problem(403, "forbidden");
    let path = format!("/v1/jobs/{job}");
    server.call("DELETE", &path, &read, b"").problem(403, "forbidden");
    server.call("GET", "/v1/audit", &read, b"").problem(403, "forbidden");

    // The page's session.
    let key = json!({ "key": all.strip_prefix("Bearer ").unwrap() });
    let signed_in = server.json("/v1/session", &key);
    assert_eq!(signed_in.ok()["tenant"], "one");
    let cookie = signed_in.header("set-cookie").unwrap().to_string();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let session = [("Cookie", cookie)];
    assert_eq!(server.call("GET", &path, &session, b"").status, 200);
    server.call("DELETE", &path, &session, b"").problem(403, "cross_site");
    let page = [("Cookie", cookie), ("X-Requested-With", "veriscope")];
    assert_eq!(server.call("DELETE", &path, &page, b"").status, 204);
    server.json("/v1/session", &json!({ "key": "vs_no" })).problem(401, "unauthorized");

    // Rates and revocation, by the command beside the running server.
    tenants(&data, &["set", "two", "--rate-per-minute", "2"]);
    tenants(&data, &["revoke-key", "one", "reader"]);
    std::thread::sleep(Duration::from_millis(2_500));
    server.call("GET", "/v1/jobs", &read, b"").problem(401, "unauthorized");
    let limited: Vec<Answer> = (0..3).map(|_| server.upload(&two, &[], b"x")).collect();
    limited[0].problem(415, "unsupported_media");
    limited[2].problem(429, "rate_limited");
}

/// Answers each request on a port of loopback with what `answer` makes of its path; with nothing,
/// never.
fn web(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let _ = reader.read_line(&mut line);
            while reader.read_line(&mut String::new()).is_ok_and(|n| n > 2) {}
            match answer(line.split(' ').nth(1).unwrap_or_default()) {
                Some(bytes) => {
                    let _ = stream.write_all(&bytes);
                }
                None => kept.push(stream),
            }
        }
    });
    port
}

#[test]
fn urls_are_fetched_from_where_they_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let png = grey(dir.path(), 50);
    let secret = web(|_| panic!("a private address was asked"));
    let port = web(move |path| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", png.len());
        Some(match path {
            "/a.png" => [head.as_bytes(), &png].concat(),
            "/inside" => b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n".to_vec(),
            "/port" => {
                format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{secret}/\r\n\r\n").into()
            }
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        })
    });
    let allow = format!("127.0.0.1:{port}");
    let server = Service::start(&dir.path().join("data"), &["--no-auth", "--fetch-allow", &allow]);
    let fetch = |url: &str| {
        let answer = server.json("/v1/jobs", &json!({ "url": url }));
        assert_eq!(answer.status, 202, "{}", answer.text());
        server.ended(&[], &id(&answer.value()))
    };
    let done = fetch(&format!("http://127.0.0.1:{port}/a.png"));
    assert_eq!((&done["state"], done["bytes"].is_u64()), (&json!("done"), true), "{done}");
    for (url, code) in [
        (format!("http://127.0.0.1:{port}/none"), "status"),
        (format!("http://127.0.0.1:{port}/inside"), "address_not_allowed"),
        (format!("http://127.0.0.1:{port}/port"), "port_not_allowed"),
        ("http://127.0.0.1/".into(), "address_not_allowed"),
        ("http://[::1]/".into(), "address_not_allowed"),
        ("http://[::ffff:127.0.0.1]/".into(), "address_not_allowed"),
        ("http://10.0.0.1/".into(), "address_not_allowed"),
        ("http://169.254.169.254/latest/meta-data/".into(), "address_not_allowed"),
        ("http://2130706433/".into(), "address_not_allowed"),
        ("http://0x7f.1/".into(), "address_not_allowed"),
        ("http://localhost/".into(), "address_not_allowed"),
    ] {
        let failed = fetch(&url);
        assert_eq!(failed["state"], "failed", "{url}: {failed}");
        assert_eq!(failed["error"]["code"], code, "{url}: {failed}");
    }
    server.expect_no_uploads();
}

/// What `/metrics` says of a name.
fn metric(server: &Service, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// Waits until something holds.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn webhook_deliveries_are_listed_with_their_job_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    let port = web(move |_| {
        let status = match is_down.load(std::sync::atomic::Ordering::SeqCst) {
            true => "503 Down",
            false => "204 No Content",
        };
        Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    });
    tenants(&data, &["set", "default", "--webhook-url", &format!("http://127.0.0.1:{port}/hook")]);
    let allow = format!("127.0.0.1:{port}");
    let server = Service::start(&data, &["--no-auth", "--fetch-allow", &allow]);
    let pending = || metric(&server, "veriscope_deliveries_pending");
    assert_eq!((pending(), metric(&server, "veriscope_oldest_delivery_seconds")), (0.0, 0.0));
    let job = id(&server.upload(&[], &[], &picture()).ok());
    server.ended(&[], &job);
    let path = format!("/v1/jobs/{job}/deliveries");
    let first = || server.get(&path).ok()["deliveries"][0].clone();
    until("it was called", || first()["attempts"] == 1);
    let delivery = first();
    assert_eq!((&delivery["state"], &delivery["event"]), (&json!("pending"), &json!("job.done")));
    assert_eq!(delivery["last_error"], "status: the receiver answered 503");
    assert!(delivery["next_at"].as_str() > delivery["created"].as_str(), "{delivery}");
    until("it is counted", || pending() == 1.0);
    until("it gets older", || metric(&server, "veriscope_oldest_delivery_seconds") > 1.0);

    down.store(false, std::sync::atomic::Ordering::SeqCst);
    let replay = format!("/v1/webhooks/deliveries/{}/replay", delivery["id"].as_str().unwrap());
    assert_eq!(server.call("POST", &replay, &[], b"").status, 202);
    until("it is delivered", || first()["state"] == "delivered");
    until("it is not counted any more", || pending() == 0.0);
    let ended = |state: &str| {
        metric(&server, &format!("veriscope_deliveries_ended_total{{state=\"{state}\"}}"))
    };
    assert_eq!((ended("delivered"), ended("dead")), (1.0, 0.0));
    assert_eq!(metric(&server, "veriscope_oldest_delivery_seconds"), 0.0);

    // A receiver that is gone for good: where there is no webhook any more, the call is given up.
    down.store(true, std::sync::atomic::Ordering::SeqCst);
    let decision = format!("/v1/jobs/{job}/decision");
    server.json(&decision, &json!({ "verdict": "allow" })).ok();
    tenants(&data, &["set", "default", "--webhook-url", ""]);
    until("it is given up", || first()["state"] == "dead");
    assert_eq!((ended("delivered"), ended("dead")), (1.0, 1.0));
    let events = server.get(&path).ok();
    let events = events["deliveries"].as_array().unwrap();
    assert_eq!(events.len(), 2, "newest first");
    assert_eq!(events[1]["event"], "job.done");
}

/// The example of docs/webhooks.md as it stands there, in a receiver that a real server calls.
#[test]
fn the_documents_example_tells_good_calls_from_bad_ones() {
    let document = std::fs::read_to_string(common::root().join("docs/webhooks.md")).unwrap();
    let blocks: Vec<&str> = document.split("```python\n").skip(1).collect();
    let [block] = blocks.as_slice() else { panic!("{} examples in Python", blocks.len()) };
    let example = block.split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("receiver.py");
    std::fs::write(&script, format!("{example}\n{RECEIVER}")).unwrap();
    let data = dir.path().join("data");
    tenants(&data, &["set", "default"]);
    let mut receiver = std::process::Command::new("python3")
        .arg(&script)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut tell, said) = (receiver.stdin.take().unwrap(), receiver.stdout.take().unwrap());
    let mut said = BufReader::new(said).lines().map(Result::unwrap);
    let port = said.next().unwrap();
    let url = format!("http://127.0.0.1:{port}/hook");
    let secret = tenants(&data, &["set", "default", "--webhook-url", &url]);
    assert_eq!(secret.len(), 64);
    writeln!(tell, "{secret}").unwrap();
    let allow = format!("127.0.0.1:{port}");
    let server = Service::start(&data, &["--no-auth", "--fetch-allow", &allow]);
    let fields = [("reference", "\u{4f60}\u{597d} \"x\"")];
    let job = id(&server.upload(&[], &fields, &picture()).ok());
    server.ended(&[], &job);

    let all: Value = serde_json::from_str(&said.next().expect("an answer")).unwrap();
    assert_eq!(all["good"]["event"], "job.done", "{all}");
    assert_eq!(all["good"]["job"]["id"], job.as_str());
    assert_eq!(all["good"]["job"]["reference"], "\u{4f60}\u{597d} \"x\"");
    // Still good five minutes later and earlier, and not a second more.
    for name in ["in five minutes", "five minutes ago"] {
        assert_eq!(all[name]["id"], all["good"]["id"], "{name}: {all}");
    }
    for (name, why) in [
        ("altered", "the signature is wrong"),
        ("a byte more", "the signature is wrong"),
        ("other secret", "the signature is wrong"),
        ("other time", "the signature is wrong"),
        ("other signature", "the signature is wrong"),
        ("signature of another alphabet", "the signature is wrong"),
        ("half a header", "the signature is wrong"),
        ("too old", "the call is too old"),
        ("from the future", "the call is too old"),
    ] {
        assert_eq!(all[name], json!({ "ValueError": why }), "{name}");
    }
    for name in ["no header", "a header of nothing"] {
        assert!(all[name]["ValueError"].is_string(), "{name}: {all}");
    }
    // What the example took, the server knows to be delivered.
    let path = format!("/v1/jobs/{job}/deliveries");
    until("it is delivered", || server.get(&path).ok()["deliveries"][0]["state"] == "delivered");
    drop(tell);
    assert!(receiver.wait().unwrap().success());
}

/// Says its port, reads the secret, answers calls as the example judges them, and says what the example
/// makes of the first and of what somebody could make of it.
const RECEIVER: &str = r#"
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

secret = None


def judge(*args, **more):
    try:
        return received(*args, **more)
    except ValueError as wrong:
        return {"ValueError": str(wrong)}


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = "Veriscope-Signature"
        signed = self.headers[name]
        made = int(signed.split(",")[0][2:])
        good = judge(body, self.headers, secret)
        said = {"good": good}
        said["altered"] = judge(body.replace(b"done", b"gone", 1), self.headers, secret)
        said["a byte more"] = judge(body + b" ", self.headers, secret)
        said["other secret"] = judge(body, self.headers, secret[::-1])
        said["other time"] = judge(body, {name: signed.replace(f"t={made}", f"t={made + 1}")}, secret)
        last = "0" if signed[-1] != "0" else "1"
        said["other signature"] = judge(body, {name: signed[:-1] + last}, secret)
        said["signature of another alphabet"] = judge(body, {name: f"t={made},v1=ä"}, secret)
        said["half a header"] = judge(body, {name: signed.split(",")[0]}, secret)
        said["no header"] = judge(body, {}, secret)
        said["a header of nothing"] = judge(body, {name: ""}, secret)
        said["in five minutes"] = judge(body, self.headers, secret, now=made + 300)
        said["five minutes ago"] = judge(body, self.headers, secret, now=made - 300)
        said["too old"] = judge(body, self.headers, secret, now=made + 301)
        said["from the future"] = judge(body, self.headers, secret, now=made - 301)
        self.send_response(400 if "ValueError" in good else 204)
        self.end_headers()
        print(json.dumps(said), flush=True)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
secret = sys.stdin.readline().strip()
threading.Thread(target=server.serve_forever, daemon=True).start()
# Ends with the test, whatever becomes of that.
sys.stdin.read()
"#;

#[test]
fn a_removed_tenant_is_gone_at_once_and_its_name_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), web(|_| None));
    let scopes = ["--scopes", "submit,read,review,admin"];
    let make = |tenant: &str| {
        tenants(&data, &["set", tenant, "--keep-media", "600"]);
        let key = [&["add-key", tenant, "all"], &scopes[..]].concat();
        bearer(&tenants(&data, &key))
    };
    let (one, two) = (make("one"), make("two"));
    let (one, two) = ([("Authorization", one.as_str())], [("Authorization", two.as_str())]);
    let server = Service::start(&data, &["--fetch-allow", &format!("127.0.0.1:{port}")]);
    let done = id(&server.upload(&one, &[], &picture()).ok());
    server.ended(&one, &done);
    let theirs = id(&server.upload(&two, &[], &picture()).ok());
    server.ended(&two, &theirs);
    // One that is under way, and somebody who watches it.
    let url = json!({ "url": format!("http://127.0.0.1:{port}/never") }).to_string();
    let headers = [one[0], ("Content-Type", "application/json")];
    let running = id(&server.call("POST", "/v1/jobs", &headers, url.as_bytes()).ok());
    let mut events = server.connect();
    let follow = request("GET", &format!("/v1/jobs/{running}/events"), &one, b"");
    events.write_all(&follow).unwrap();
    let mut start = [0; 12];
    events.read_exact(&mut start).unwrap();
    assert_eq!(server.uploads().len(), 2);
    let contents = |tenant: &str| data.join("contents").join(tenant);
    assert!(contents("one").is_dir());

    tenants(&data, &["remove", "one"]);
    // All of it, when the command has ended; keys may be remembered for two seconds.
    assert!(!contents("one").exists() && contents("two").is_dir());
    until("its media is gone", || server.uploads().len() == 1);
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("{\"state\":\"cancelled\"}") && rest.contains("event: done"), "{rest}");
    std::thread::sleep(Duration::from_millis(2_100));
    server.call("GET", "/v1/jobs", &one, b"").problem(401, "unauthorized");
    server.upload(&one, &[], &picture()).problem(401, "unauthorized");
    assert_eq!(tenants(&data, &["list"]).lines().count(), 1);
    let again = std::process::Command::new(common::PROGRAM)
        .args(["tenants", "--data"])
        .arg(&data)
        .args(["remove", "one"])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("there is no tenant one"));

    // Another of the same name begins with nothing, and reads nothing of the old one's log.
    let new = make("one");
    let new = [("Authorization", new.as_str())];
    assert_eq!(server.call("GET", "/v1/jobs", &new, b"").ok()["jobs"], json!([]));
    let log = server.call("GET", "/v1/audit", &new, b"").ok();
    let what: Vec<&str> =
        log["entries"].as_array().unwrap().iter().map(|e| e["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["key.added", "tenant.set"]);
    for path in ["", "/media", "/previews", "/deliveries"] {
        let path = format!("/v1/jobs/{done}{path}");
        server.call("GET", &path, &new, b"").problem(404, "not_found");
    }
    assert_eq!(server.upload(&new, &[], &picture()).status, 202, "judged anew");
    // The other one was not touched.
    let media = format!("/v1/jobs/{theirs}/media");
    assert!(server.call("GET", &media, &two, b"").body == picture());
}

#[test]
fn without_keys_the_tenant_that_is_removed_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Service::start(&data, NO_AUTH);
    let job = id(&server.upload(&[], &[], &picture()).ok());
    server.ended(&[], &job);
    tenants(&data, &["remove", "default"]);
    until("it is there again", || {
        let answer = server.get("/v1/jobs");
        if answer.status != 200 {
            answer.problem(503, "busy");
        }
        answer.status == 200
    });
    assert_eq!(server.get("/v1/jobs").ok()["jobs"], json!([]));
    server.get(&format!("/v1/jobs/{job}")).problem(404, "not_found");
    let again = server.upload(&[], &[], &picture());
    assert_eq!(again.status, 202, "not answered from a report of before: {}", again.text());
    server.ended(&[], &id(&again.value()));
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    // Without a server the command does all by itself.
    tenants(&data, &["remove", "default"]);
    assert_eq!(std::fs::read_dir(data.join("contents")).unwrap().count(), 0);
    let server = Service::start(&data, NO_AUTH);
    assert_eq!(server.get("/v1/jobs").ok()["jobs"], json!([]));
}

#[test]
fn full_queues_say_when_to_come_again_and_cancelled_jobs_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let port = web(|_| None);
    let allow = format!("127.0.0.1:{port}");
    let data = dir.path().join("data");
    tenants(&data, &["set", "default", "--max-queued", "2"]);
    let server =
        Service::start(&data, &["--no-auth", "--fetch-allow", &allow, "--max-queued", "3"]);
    let url = json!({ "url": format!("http://127.0.0.1:{port}/never") });
    let first = id(&server.json("/v1/jobs", &url).ok());
    server.json("/v1/jobs", &url).ok();
    server.json("/v1/jobs", &url).problem(429, "tenant_queue_full");
    server.get(&format!("/v1/report/{first}")).problem(409, "not_finished");
    let decision = format!("/v1/jobs/{first}/decision");
    server.json(&decision, &json!({ "verdict": "allow" })).problem(409, "not_finished");
    tenants(&data, &["set", "default", "--max-queued", "10"]);
    let until = Instant::now() + Duration::from_secs(20);
    while server.json("/v1/jobs", &url).status == 429 {
        assert!(Instant::now() < until, "the new limit is not taken up");
        std::thread::sleep(Duration::from_millis(100));
    }
    server.json("/v1/jobs", &url).problem(503, "queue_full");
    server.upload(&[], &[], &picture()).problem(503, "queue_full");
    server.get("/readyz").problem(503, "queue_full");
    assert_eq!(server.call("DELETE", &format!("/v1/jobs/{first}"), &[], b"").status, 204);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.upload(&[], &[], &picture()).status, 202);
    server.expect_no_uploads();
}

#[test]
fn kept_media_is_played_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    tenants(&data, &["set", "default", "--keep-media", "600"]);
    let server = Service::start(&data, NO_AUTH);
    let png = picture();
    let job = id(&server.upload(&[], &[], &png).ok());
    assert_eq!(server.ended(&[], &job)["has_media"], true);
    let path = format!("/v1/jobs/{job}/media");
    let whole = server.get(&path);
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("image/png")));
    assert!(whole.body == png && whole.header("accept-ranges") == Some("bytes"));
    assert!(whole.header("content-security-policy").unwrap().contains("sandbox"));
    let part = server.call("GET", &path, &[("Range", "bytes=10-19")], b"");
    assert_eq!((part.status, part.body.as_slice()), (206, &png[10..20]));
    let range = format!("bytes 10-19/{}", png.len());
    assert_eq!(part.header("content-range"), Some(range.as_str()));
    let past = server.call("GET", &path, &[("Range", "bytes=99999999-")], b"");
    past.problem(416, "range_not_satisfiable");
    let head = server.call("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_stopped_server_says_goodbye_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let port = web(|_| None);
    let allow = format!("127.0.0.1:{port}");
    let args = ["--no-auth", "--grace", "5", "--fetch-allow", &allow];
    let server = Service::start(&data, &args);
    let done = id(&server.upload(&[], &[], &picture()).ok());
    server.ended(&[], &done);
    let url = json!({ "url": format!("http://127.0.0.1:{port}/never") });
    let waiting = id(&server.json("/v1/jobs", &url).ok());
    let mut events = server.connect();
    let follow = request("GET", &format!("/v1/jobs/{waiting}/events"), &[], b"");
    events.write_all(&follow).unwrap();
    let mut start = [0; 12];
    events.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");

    // Another server in the same folder is refused.
    let second = std::process::Command::new(common::PROGRAM)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--detectors",
            "label-strip",
            "--no-auth",
            "--data",
        ])
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server"));

    let stopped = Instant::now();
    server.signal(libc::SIGTERM);
    // The stream of events ends.
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).unwrap();
    assert_eq!(server.wait(), Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(40));

    let server = Service::start(&data, &args);
    assert_eq!(server.get(&format!("/v1/jobs/{done}")).ok()["state"], "done");
    assert_eq!(server.get(&format!("/v1/jobs/{waiting}")).ok()["state"], "fetching");
    let again = server.upload(&[], &[], &picture());
    assert_eq!((again.status, &again.value()["reused"]), (200, &json!(true)));
}

#[test]
fn keys_are_asked_for_beyond_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(common::PROGRAM)
        .args(["serve", "--listen", "0.0.0.0:0", "--no-auth", "--data"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--no-auth is for loopback"), "{said}");
}

#[test]
fn the_document_describes_itself_and_the_page_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = Service::start(&dir.path().join("data"), NO_AUTH);
    let document = server.get("/v1/openapi.json").ok();
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for path in ["/v1/jobs", "/v1/jobs/{id}/events", "/v1/report/{id}", "/metrics", "/readyz"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    // Two operations of one name would be one function of a generated client.
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|path| path.as_object().unwrap().values());
    let mut names: Vec<&str> = operations.filter_map(|o| o["operationId"].as_str()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
    assert!(all > 20, "{names:?}");
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'self'"));
    let tag = page.header("etag").unwrap();
    assert_eq!(server.call("GET", "/", &[("If-None-Match", tag)], b"").status, 304);
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text().contains("route=\"/v1/openapi.json\",status=\"200\"} 1"));
}
