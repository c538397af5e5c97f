//! The crop of a face with its heat map laid over it, as a picture.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Path as UrlPath, State};
use axum::response::{IntoResponse, Response};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use jpeg_encoder::{ColorType, Encoder};
use uuid::Uuid;

use super::App;
use super::auth::Caller;
use super::files;
use super::openapi::Binary;
use super::problem::Problem;
use crate::media::{DecodeOptions, Event, Frame, Limits, Source};
use crate::report::HeatMap;
use crate::serve::store::Scope;

/// Side of the picture where there is no crop: the map lies on grey.
const SIDE: usize = 264;
/// Most of the crop that the map covers.
const STRENGTH: f32 = 0.6;
const QUALITY: u8 = 85;

/// Read a heat map
///
/// The crop of the face at the peak of a segment, and over it where the face was altered, from yellow
/// (little) to red (most). `segment` is the segment's place in the report, from 0.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/heat-maps/{file}",
    tag = "reports",
    params(super::extract::Id,
        ("file" = String, Path, description = "`<segment>.jpg`", pattern = "^[0-9]{1,6}\\.jpg$")),
    responses(
        (status = 200, description = "A JPEG picture", body = inline(Binary), content_type = "image/jpeg"),
        (status = 404, description = "No such job, or its segment has no heat map"))
)]
pub async fn heat_map(
    State(app): State<Arc<App>>,
    caller: Caller,
    UrlPath((id, file)): UrlPath<(String, String)>,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let id = id.parse::<Uuid>().map_err(|_| Problem::not_found("job"))?;
    let tenant = caller.tenant.name;
    app.job(&tenant, id).await?;
    let missing = || Problem::not_found("heat map");
    let segment = file.strip_suffix(".jpg").and_then(|n| n.parse::<usize>().ok());
    let segment = segment.ok_or_else(missing)?;
    let (map, folder) = app
        .read("reading the report", move |s| {
            let mut report = s.report(&tenant, id)?;
            let segments = report.as_mut().map(|r| std::mem::take(&mut r.segments));
            let map = segments.and_then(|all| all.into_iter().nth(segment)?.heat_map);
            Ok((map, s.previews_path(&tenant, id)?))
        })
        .await?;
    let map = map.ok_or_else(missing)?;
    let drawn = tokio::task::spawn_blocking(move || {
        let crop = folder.map(|folder| folder.join(format!("crop-{segment}.jpg")));
        draw(&map, crop.and_then(|path| decode(&path)))
    });
    let drawn = drawn.await.map_err(|e| Problem::internal("drawing the heat map", &e))?;
    let jpeg = drawn.ok_or_else(missing)?;
    let mut response = jpeg.into_response();
    files::set(&mut response, CONTENT_TYPE, "image/jpeg");
    files::set(&mut response, CACHE_CONTROL, "private, max-age=3600");
    Ok(response)
}

/// A crop that the service wrote; none where it is not there.
fn decode(path: &Path) -> Option<Frame> {
    let source = Source::open(path, &Limits::default()).ok()?;
    let options = DecodeOptions { fps: 0.0, video: true, audio: false, threads: 1, hardware: None };
    let mut found = None;
    let mut sink = |event| match event {
        Event::Frame(frame) => {
            found = Some(frame);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    source.decode(&options, &mut sink).ok()?;
    found
}

/// The map over the crop, or over grey. None where the map is none.
fn draw(map: &HeatMap, crop: Option<Frame>) -> Option<Vec<u8>> {
    let cells = map.columns.checked_mul(map.rows)?;
    if cells == 0 || map.values.len() != cells {
        return None;
    }
    let (width, height, mut rgb) = match crop {
        Some(frame) => (frame.width, frame.height, frame.rgb),
        None => (SIDE, SIDE, vec![0x77; SIDE * SIDE * 3]),
    };
    for (i, pixel) in rgb.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((i % width) as f32 + 0.5, (i / width) as f32 + 0.5);
        let heat = at(map, x / width as f32, y / height as f32).clamp(0.0, 1.0);
        // Green alone makes yellow of red, so that lightness tells it too.
        let colour = [235.0 - 40.0 * heat, 205.0 - 190.0 * heat, 40.0];
        let cover = STRENGTH * heat;
        for (value, colour) in pixel.iter_mut().zip(colour) {
            *value = (f32::from(*value) * (1.0 - cover) + colour * cover).round() as u8;
        }
    }
    let mut jpeg = Vec::new();
    let (w, h) = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
    Encoder::new(&mut jpeg, QUALITY).encode(&rgb, w, h, ColorType::Rgb).ok()?;
    Some(jpeg)
}

/// The map's value at a place in shares of its width and height, between cells' centres in proportion.
fn at(map: &HeatMap, x: f32, y: f32) -> f32 {
    let place = |share: f32, n: usize| {
        let cell = (share * n as f32 - 0.5).clamp(0.0, (n - 1) as f32);
        let low = cell.floor() as usize;
        (low, (low + 1).min(n - 1), cell - cell.floor())
    };
    let (x0, x1, fx) = place(x, map.columns);
    let (y0, y1, fy) = place(y, map.rows);
    let value = |x: usize, y: usize| map.values.get(y * map.columns + x).copied().unwrap_or(0.0);
    let row = |y: usize| value(x0, y) * (1.0 - fx) + value(x1, y) * fx;
    row(y0) * (1.0 - fy) + row(y1) * fy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(columns: usize, rows: usize, values: &[f32]) -> HeatMap {
        HeatMap { columns, rows, values: values.to_vec() }
    }

    #[test]
    fn between_cells_values_pass_over() {
        let map = map(2, 2, &[0.0, 1.0, 0.0, 1.0]);
        for (x, value) in [(0.0, 0.0), (0.25, 0.0), (0.5, 0.5), (0.75, 1.0), (1.0, 1.0)] {
            assert!((at(&map, x, 0.5) - value).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn the_hot_side_is_red_and_the_cold_side_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crop-0.jpg");
        let grey = draw(&map(1, 1, &[0.0]), None).unwrap();
        std::fs::write(&path, grey).unwrap();
        let crop = decode(&path).unwrap();
        assert_eq!((crop.width, crop.height), (SIDE, SIDE));
        let drawn = draw(&map(2, 1, &[0.0, 1.0]), Some(crop)).unwrap();
        std::fs::write(&path, drawn).unwrap();
        let drawn = decode(&path).unwrap();
        let pixel = |x: usize| &drawn.rgb[3 * (100 * SIDE + x)..][..3];
        assert!(pixel(10).iter().all(|v| v.abs_diff(0x77) < 8), "{:?}", pixel(10));
        let hot = pixel(250);
        assert!(hot[0] > 150 && hot[1] < 90 && hot[2] < 90, "{hot:?}");
    }

    #[test]
    fn a_map_that_is_none_is_not_drawn() {
        assert!(draw(&map(0, 0, &[]), None).is_none());
        assert!(draw(&map(2, 2, &[1.0]), None).is_none());
    }
}
