//! Requests to addresses that tenants name: only `http` and `https`, only to public addresses.
//!
//! A tenant may name any URL, for media to fetch or as its webhook. What answers there must not be this
//! machine, nor what only this machine's network reaches, nor a cloud's metadata service. So each hop's
//! name is resolved once, every address that comes back is judged, and the connection can go to none
//! but those (a client is made for the hop whose resolver knows no others): there is no second
//! look-up that could answer differently. `docs/policy.md` lists the rules.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest URL that is looked at.
const MAX_URL: usize = 2_048;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Why a URL is not requested, or what went wrong.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("the URL is not valid: {0}")]
    BadUrl(String),
    #[error("only http and https are fetched, not `{0}`")]
    Scheme(String),
    #[error("URLs with a user name or password are not fetched")]
    UserInfo,
    #[error("port {0} is not allowed")]
    Port(u16),
    /// Which address it is stays unsaid: names of an inner network must not be readable through us.
    #[error("the host `{0}` is not, or not only, at public addresses")]
    Address(String),
    #[error("the host `{0}` has no address")]
    NotResolved(String),
    #[error("no certificates are trusted on this system, so https cannot be used")]
    NoRoots,
    #[error("the server's certificate is not trusted, or TLS failed: {0}")]
    Tls(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("it took longer than {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
    #[error("the client cannot be built: {0}")]
    Client(String),
}

impl OutboundError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadUrl(_) => "bad_url",
            Self::Scheme(_) => "scheme_not_allowed",
            Self::UserInfo => "userinfo_not_allowed",
            Self::Port(_) => "port_not_allowed",
            Self::Address(_) => "address_not_allowed",
            Self::NotResolved(_) => "name_not_resolved",
            Self::NoRoots | Self::Tls(_) => "tls_failed",
            Self::Connect(_) => "connect_failed",
            Self::TimedOut(_) => "timed_out",
            Self::BrokenOff(_) => "broken_off",
            Self::Client(_) => "internal_error",
        }
    }
}

/// Addresses that may be asked although they are not public, such as an internal object store:
/// `10.1.2.3`, `10.1.0.0/16`, `fd00::/8`, each with a port at the end or without
/// (`127.0.0.1:9000`, `[fd00::1]:9000`). With a port it holds for that port alone; without one for 80
/// and 443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    net: IpAddr,
    bits: u8,
    port: Option<u16>,
}

impl std::str::FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no address such as 10.1.2.3, 10.1.0.0/16 or [fd00::1]:9000");
        let (inner, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, after) = rest.split_once(']').ok_or_else(wrong)?;
                match after.strip_prefix(':') {
                    Some(port) => (inner, Some(port)),
                    None if after.is_empty() => (inner, None),
                    None => return Err(wrong()),
                }
            }
            None => match text.split_once(':') {
                Some((inner, port)) if !port.contains(':') => (inner, Some(port)),
                _ => (text, None),
            },
        };
        let port = port.map(str::parse::<u16>).transpose().map_err(|_| wrong())?;
        let (net, bits) = match inner.split_once('/') {
            Some((net, bits)) => (net, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (inner, None),
        };
        let net: IpAddr = net.parse().map_err(|_| wrong())?;
        let most = if net.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { net, bits, port })
    }
}

impl Allowed {
    fn holds(&self, address: IpAddr, port: u16) -> bool {
        let port_fits = self.port.map_or(matches!(port, 80 | 443), |own| own == port);
        let within = match (self.net, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                within_v4(address, u32::from(net), u32::from(self.bits))
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                within_v6(address, u128::from(net), u32::from(self.bits))
            }
            _ => false,
        };
        port_fits && within
    }
}

fn within_v4(address: Ipv4Addr, net: u32, bits: u32) -> bool {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    (u32::from(address) ^ net) & mask == 0
}

fn within_v6(address: Ipv6Addr, net: u128, bits: u32) -> bool {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    (u128::from(address) ^ net) & mask == 0
}

/// IPv4 that is not public (IANA's special-purpose registry, and what clouds use for themselves).
const NOT_PUBLIC_V4: [([u8; 4], u32); 17] = [
    // This network.
    ([0, 0, 0, 0], 8),
    // Private.
    ([10, 0, 0, 0], 8),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    // Carriers' NAT; 100.100.100.200 is a cloud's metadata service.
    ([100, 64, 0, 0], 10),
    // Loopback.
    ([127, 0, 0, 0], 8),
    // Link-local; 169.254.169.254 is most clouds' metadata service.
    ([169, 254, 0, 0], 16),
    // Protocol assignments; 192.0.0.192 is a cloud's metadata service.
    ([192, 0, 0, 0], 24),
    // Documentation.
    ([192, 0, 2, 0], 24),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Relays of 6to4.
    ([192, 88, 99, 0], 24),
    // Benchmarks.
    ([198, 18, 0, 0], 15),
    // A cloud's own services, at an address that looks public.
    ([168, 63, 129, 16], 32),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// Within 2000::/3, the only part of IPv6 that is public.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    // Protocol assignments: Teredo, ORCHID, benchmarks.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4: any IPv4 inside, by way of whoever relays.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !NOT_PUBLIC_V4.iter().any(|&(net, bits)| within_v4(v4, u32::from_be_bytes(net), bits))
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_public(IpAddr::V4(v4));
            }
            // NAT64's well-known prefix, which names of IPv4-only hosts get in IPv6-only networks: what
            // counts is the IPv4 address inside.
            if within_v6(v6, 0x0064_ff9b << 96, 96) {
                let [.., a, b, c, d] = v6.octets();
                return is_public(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
            }
            within_v6(v6, 0x2000 << 112, 3)
                && !NOT_PUBLIC_V6.iter().any(|&(net, bits)| within_v6(v6, u128::from(net), bits))
        }
    }
}

/// What turns names into addresses.
pub trait Lookup: Send + Sync {
    fn lookup(
        &self,
        host: &str,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;
}

/// As the system does it.
struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(
        &self,
        host: &str,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        let host = host.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Answers every name with the addresses that were judged.
struct Judged(Vec<IpAddr>);

impl Resolve for Judged {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Vec<SocketAddr> =
            self.0.iter().map(|&address| SocketAddr::new(address, 0)).collect();
        Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
    }
}

/// Makes requests to public addresses, and to those that the operator allows.
#[derive(Clone)]
pub struct Outbound {
    allowed: Arc<[Allowed]>,
    lookup: Arc<dyn Lookup>,
    tls: Arc<rustls::ClientConfig>,
    /// Whether the system trusts any certificates.
    has_roots: bool,
}

impl Outbound {
    /// Reads the system's trusted certificates; where there are none, `https` is refused later.
    ///
    /// # Errors
    /// TLS that cannot be set up.
    pub fn new(allowed: Vec<Allowed>) -> Result<Self, OutboundError> {
        let mut roots = rustls::RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        let (lookup, has_roots) = (Arc::new(SystemLookup), !roots.is_empty());
        if !has_roots {
            tracing::warn!("no trusted certificates on this system: https URLs cannot be used");
        }
        Ok(Self { allowed: allowed.into(), lookup, tls: tls(roots)?, has_roots })
    }

    /// The same with other certificates trusted.
    #[cfg(test)]
    pub fn with_roots(mut self, roots: rustls::RootCertStore) -> Result<Self, OutboundError> {
        self.has_roots = !roots.is_empty();
        self.tls = tls(roots)?;
        Ok(self)
    }

    /// The same with another way to turn names into addresses.
    pub fn with_lookup(mut self, lookup: Arc<dyn Lookup>) -> Self {
        self.lookup = lookup;
        self
    }

    /// Everything about a URL that can be told without a look-up.
    ///
    /// # Errors
    /// A URL that is never requested.
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        if url.len() > MAX_URL {
            return Err(OutboundError::BadUrl(format!("it is longer than {MAX_URL} bytes")));
        }
        let url = Url::parse(url).map_err(|e| OutboundError::BadUrl(e.to_string()))?;
        self.check_parsed(&url)?;
        Ok(url)
    }

    fn check_parsed(&self, url: &Url) -> Result<(), OutboundError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutboundError::UserInfo);
        }
        let port = port_of(url)?;
        if !matches!(port, 80 | 443) && !self.allowed.iter().any(|a| a.port == Some(port)) {
            return Err(OutboundError::Port(port));
        }
        match url.host() {
            None => Err(OutboundError::BadUrl("it has no host".to_owned())),
            Some(Host::Domain(_)) => Ok(()),
            Some(Host::Ipv4(address)) => self.judge(url, &[address.into()], port),
            Some(Host::Ipv6(address)) => self.judge(url, &[address.into()], port),
        }
    }

    /// Every address must be one that may be asked: a name with a public address beside an inner one
    /// is no accident.
    fn judge(&self, url: &Url, addresses: &[IpAddr], port: u16) -> Result<(), OutboundError> {
        let host = || url.host_str().unwrap_or_default().to_owned();
        if addresses.is_empty() {
            return Err(OutboundError::NotResolved(host()));
        }
        for address in addresses {
            let canonical = address.to_canonical();
            let ordinary = matches!(port, 80 | 443) && is_public(canonical);
            if !ordinary && !self.allowed.iter().any(|a| a.holds(canonical, port)) {
                tracing::debug!("{} is at {address} port {port}: refused", host());
                return Err(OutboundError::Address(host()));
            }
        }
        Ok(())
    }

    /// A client for one request to `url`, which can connect to nothing but the addresses judged here.
    /// It follows no redirects, keeps no cookies, unpacks nothing and heeds no proxy settings.
    ///
    /// # Errors
    /// A URL that may not be requested, a name without addresses.
    pub async fn client(&self, url: &Url) -> Result<reqwest::Client, OutboundError> {
        self.check_parsed(url)?;
        let addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => {
                let looking = tokio::time::timeout(CONNECT_TIMEOUT, self.lookup.lookup(name));
                let found = looking.await.map_err(|_| OutboundError::TimedOut(CONNECT_TIMEOUT))?;
                let mut found = found.map_err(|_| OutboundError::NotResolved(name.to_owned()))?;
                self.judge(url, &found, port_of(url)?)?;
                found.truncate(MAX_ADDRESSES);
                found
            }
            None => return Err(OutboundError::BadUrl("it has no host".to_owned())),
        };
        if url.scheme() == "https" && !self.has_roots {
            return Err(OutboundError::NoRoots);
        }
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("veriscope/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Judged(addresses))
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&self.tls));
        builder.build().map_err(|e| OutboundError::Client(sources(&e)))
    }
}

fn tls(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, OutboundError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| OutboundError::Client(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn port_of(url: &Url) -> Result<u16, OutboundError> {
    url.port_or_known_default()
        .filter(|&port| port != 0)
        .ok_or_else(|| OutboundError::BadUrl("it has no port".to_owned()))
}

/// What a failed request failed of, without the URL.
pub fn failure(error: reqwest::Error, limit: Duration) -> OutboundError {
    let error = error.without_url();
    if error.is_timeout() {
        return OutboundError::TimedOut(limit);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(e) = cause {
        if let Some(tls) = e.downcast_ref::<rustls::Error>() {
            return OutboundError::Tls(tls.to_string());
        }
        // An error of input and output keeps what it wraps from `source`.
        let wrapped = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match wrapped {
            Some(inner) => Some(inner),
            None => e.source(),
        };
    }
    match error.is_connect() {
        true => OutboundError::Connect(sources(&error)),
        false => OutboundError::BrokenOff(sources(&error)),
    }
}

/// The innermost cause: what wraps it only says that there is one.
fn sources(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
pub mod testing {
    //! Servers and look-ups for the tests of what goes out.

    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Names with the addresses of each look-up in turn; the last ones hold on.
    #[derive(Default)]
    pub struct Names {
        names: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
        pub asked: AtomicUsize,
    }

    impl Names {
        pub fn set(&self, name: &str, answers: &[&[&str]]) {
            let parse = |answer: &&[&str]| answer.iter().map(|a| a.parse().unwrap()).collect();
            let answers = answers.iter().map(parse).collect();
            self.names.lock().unwrap().insert(name.to_owned(), answers);
        }
    }

    impl Lookup for Names {
        fn lookup(
            &self,
            host: &str,
        ) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut names = self.names.lock().unwrap();
            let answer = match names.get_mut(host) {
                Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
                Some(answers) => Ok(answers[0].clone()),
                None => Err(std::io::Error::other("no such name")),
            };
            Box::pin(async move { answer })
        }
    }

    /// Reads a request's head, and its body where it states a length.
    pub async fn request(stream: &mut TcpStream) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .lines()
            .filter_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            })
            .next()
            .unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        (head, body)
    }

    /// A server on `ip` (any port, or `port`) that gives each request to `answer`.
    pub async fn server<F, R>(ip: &str, port: u16, answer: F) -> u16
    where
        F: Fn(String, Vec<u8>, TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let (head, body) = request(&mut stream).await;
                    answer(head, body, stream).await;
                });
            }
        });
        port
    }

    pub async fn say(mut stream: TcpStream, text: &str) {
        // Who gave up does not listen any more.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    pub fn outbound(allowed: &[String], names: &Arc<Names>) -> Outbound {
        let allowed = allowed.iter().map(|a| a.parse().unwrap()).collect();
        let names: Arc<dyn Lookup> = Arc::clone(names) as _;
        Outbound::new(allowed).unwrap().with_lookup(names)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    fn open() -> Outbound {
        Outbound::new(Vec::new()).unwrap()
    }

    #[test]
    fn what_is_not_public_is_known() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2400:3200::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_url_is_judged_before_anything_is_asked() {
        let outbound = open();
        let code = |url: &str| outbound.check(url).map_err(|e| e.code());
        for (url, expected) in [
            ("ftp://example.com/a", "scheme_not_allowed"),
            ("file:///etc/passwd", "scheme_not_allowed"),
            ("gopher://example.com/", "scheme_not_allowed"),
            ("data:text/plain,hi", "scheme_not_allowed"),
            ("jar:http://example.com!/", "scheme_not_allowed"),
            ("http://user@example.com/", "userinfo_not_allowed"),
            ("http://:password@example.com/", "userinfo_not_allowed"),
            ("http://public.example@127.0.0.1/", "userinfo_not_allowed"),
            ("http://example.com:22/", "port_not_allowed"),
            ("http://example.com:8080/", "port_not_allowed"),
            ("http://example.com:0/", "bad_url"),
            ("http://example.com:99999/", "bad_url"),
            ("http://", "bad_url"),
            ("example.com/a.mp4", "bad_url"),
            ("", "bad_url"),
            ("http:///", "bad_url"),
            // Zone ids are no part of URLs.
            ("http://[fe80::1%25eth0]/", "bad_url"),
            ("http://[fe80::1%eth0]/", "bad_url"),
            // Loopback in every way of writing that the standard for URLs knows.
            ("http://127.0.0.1/", "address_not_allowed"),
            ("http://127.1/", "address_not_allowed"),
            ("http://127.0.1/", "address_not_allowed"),
            ("http://2130706433/", "address_not_allowed"),
            ("http://0x7f000001/", "address_not_allowed"),
            ("http://0x7f.0.0.1/", "address_not_allowed"),
            ("http://0177.0.0.1/", "address_not_allowed"),
            ("http://017700000001/", "address_not_allowed"),
            ("http://0/", "address_not_allowed"),
            ("http://127.0.0.1./", "address_not_allowed"),
            ("http://2130706433./", "address_not_allowed"),
            ("http://\u{ff11}27.0.0.1/", "address_not_allowed"),
            ("http://127\u{3002}0\u{3002}0\u{3002}1/", "address_not_allowed"),
            ("http://%31%32%37.0.0.1/", "address_not_allowed"),
            ("http:\\\\127.0.0.1\\", "address_not_allowed"),
            ("http:127.0.0.1", "address_not_allowed"),
            ("\thttp://127.0.0.1/", "address_not_allowed"),
            ("http://[::1]/", "address_not_allowed"),
            ("http://[::]/", "address_not_allowed"),
            ("http://[::ffff:127.0.0.1]/", "address_not_allowed"),
            ("http://[::ffff:7f00:1]/", "address_not_allowed"),
            ("http://[0:0:0:0:0:ffff:10.0.0.1]/", "address_not_allowed"),
            ("http://[64:ff9b::7f00:1]/", "address_not_allowed"),
            ("http://[2002:7f00:1::]/", "address_not_allowed"),
            ("http://[fd00:ec2::254]/latest/meta-data", "address_not_allowed"),
            ("http://169.254.169.254/latest/meta-data/", "address_not_allowed"),
            ("http://0xa9fea9fe/", "address_not_allowed"),
            ("https://192.168.0.1/", "address_not_allowed"),
            ("http://256.256.256.256/", "bad_url"),
        ] {
            assert_eq!(code(url), Err(expected), "{url}");
        }
        assert_eq!(code(&format!("http://example.com/{}", "a".repeat(3_000))), Err("bad_url"));
        for url in [
            "http://example.com/a.mp4?x=1#y",
            "https://example.com:443/",
            "https://example.com:80/",
            "http://8.8.8.8/",
            "http://[2606:4700:4700::1111]/",
            "http://localhost/",
            "http://例子.测试/",
        ] {
            assert!(code(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn exceptions_are_exact() {
        let parse = |text: &str| text.parse::<Allowed>();
        for wrong in [
            "",
            "x",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.1:",
            "10.0.0.1:99999",
            "[::1",
            "[::1]9",
            "localhost",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let holds = |allowed: &str, address: &str, port| {
            parse(allowed).unwrap().holds(address.parse().unwrap(), port)
        };
        assert!(holds("10.1.2.3", "10.1.2.3", 80) && holds("10.1.2.3", "10.1.2.3", 443));
        assert!(!holds("10.1.2.3", "10.1.2.3", 9000) && !holds("10.1.2.3", "10.1.2.4", 80));
        assert!(holds("10.1.0.0/16:9000", "10.1.255.1", 9000));
        assert!(!holds("10.1.0.0/16:9000", "10.1.255.1", 80));
        assert!(!holds("10.1.0.0/16:9000", "10.2.0.1", 9000));
        assert!(holds("[fd00::1]:9000", "fd00::1", 9000) && !holds("fd00::1", "fd00::2", 80));
        assert!(holds("fd00::/8", "fdff::9", 80) && holds("0.0.0.0/0", "1.2.3.4", 80));
        assert!(!holds("0.0.0.0/0", "::1", 80));

        let outbound = Outbound::new(vec!["127.0.0.1:9000".parse().unwrap()]).unwrap();
        let code = |url: &str| outbound.check(url).map_err(|e| e.code());
        assert!(code("http://127.0.0.1:9000/").is_ok());
        assert!(code("http://[::ffff:127.0.0.1]:9000/").is_ok());
        assert_eq!(code("http://127.0.0.2:9000/"), Err("address_not_allowed"));
        assert_eq!(code("http://127.0.0.1/"), Err("address_not_allowed"));
        // The port is open for that address alone.
        assert_eq!(code("http://8.8.8.8:9000/"), Err("address_not_allowed"));
        assert_eq!(code("http://127.0.0.1:9001/"), Err("port_not_allowed"));
    }

    #[tokio::test]
    async fn names_are_judged_by_all_their_addresses() {
        let names = Arc::new(Names::default());
        names.set("inner.example", &[&["10.0.0.1"]]);
        names.set("both.example", &[&["8.8.8.8", "127.0.0.1"]]);
        names.set("mapped.example", &[&["::ffff:169.254.169.254"]]);
        names.set("dot.example.", &[&["127.0.0.1"]]);
        names.set("none.example", &[&[]]);
        names.set("public.example", &[&["8.8.8.8", "2606:4700:4700::1111"]]);
        let outbound = outbound(&["127.0.0.1:9000".to_owned()], &names);
        let code = |url: &str| {
            let url = outbound.check(url).unwrap();
            let outbound = outbound.clone();
            async move { outbound.client(&url).await.map(|_| ()).map_err(|e| e.code()) }
        };
        for (url, expected) in [
            ("http://inner.example/", Err("address_not_allowed")),
            ("http://both.example/", Err("address_not_allowed")),
            ("https://mapped.example/", Err("address_not_allowed")),
            ("http://dot.example./", Err("address_not_allowed")),
            ("http://none.example/", Err("name_not_resolved")),
            ("http://unknown.example/", Err("name_not_resolved")),
            ("http://public.example/", Ok(())),
            // The port is open for 127.0.0.1 alone.
            ("http://public.example:9000/", Err("address_not_allowed")),
        ] {
            assert_eq!(code(url).await, expected, "{url}");
        }
    }

    #[tokio::test]
    async fn the_systems_names_of_this_machine_are_refused() {
        let outbound = open();
        let url = outbound.check("http://localhost/").unwrap();
        let refused = outbound.client(&url).await.unwrap_err();
        assert_eq!(refused.code(), "address_not_allowed");
        assert!(!refused.to_string().contains("127.0.0.1"), "{refused}");
    }
}
