//! A table with a header and a row a file, commas or tabs.

use super::{DatasetError, Entry, Listing, Set, short};
use crate::bench::dataset::manifest::{Columns, is_sha256};
use crate::bench::protocol::lines::Lines;
use crate::bench::protocol::table::{Labels, Separator, fields};

/// Forged stretches of one file.
const MAX_PERIODS: usize = 10_000;

pub fn list(
    set: &Set,
    index: &str,
    columns: &Columns,
    fake_label: Option<String>,
) -> Result<Listing, DatasetError> {
    // Whoever may not write into the set's folder keeps the index with the manifest.
    let beside = set.manifest.path.with_file_name(index);
    let in_root = set.first("the index", &[index.to_owned()]);
    let path = match in_root {
        Err(_) if beside.is_file() => beside,
        other => other?,
    };
    let mut listing = Listing { has_periods: columns.periods.is_some(), ..Listing::default() };
    let list = listing.list(&path);
    let mut labels = Labels::words(fake_label);
    let mut lines = Lines::open(&path)?;
    let Some((number, header)) = lines.next()? else {
        return Err(DatasetError::new(&path, "is empty"));
    };
    let separator = if header.contains('\t') { Separator::Tab } else { Separator::Comma };
    let names: Vec<String> = fields(header, separator)
        .map_err(|message| DatasetError::new(&path, message).at(number))?
        .into_iter()
        .map(|name| name.into_owned())
        .collect();
    let place = |name: &str| match names.iter().position(|n| n == name) {
        Some(at) => Ok(at),
        None => {
            let there: Vec<String> = names.iter().map(|n| short(n)).collect();
            let message = format!("no column '{}'; there are {}", short(name), there.join(", "));
            Err(DatasetError::new(&path, message).at(number).field("columns"))
        }
    };
    let maybe = |name: &Option<String>| name.as_deref().map(place).transpose();
    let (at_path, at_label) = (place(&columns.path)?, place(&columns.label)?);
    let (at_split, at_group) = (maybe(&columns.split)?, maybe(&columns.group)?);
    let (at_generator, at_sha256) = (maybe(&columns.generator)?, maybe(&columns.sha256)?);
    let at_periods = maybe(&columns.periods)?;
    // Without a column there is one split, which the manifest has made sure of.
    let only = set.manifest.splits.keys().next().cloned().unwrap_or_default();
    while let Some((number, line)) = lines.next()? {
        let wrong = |column: usize, message: String| {
            DatasetError::new(&path, message).at(number).field(&names[column])
        };
        let fields = fields(line, separator)
            .map_err(|message| DatasetError::new(&path, message).at(number))?;
        if fields.len() != names.len() {
            let message = format!("{} columns, {} expected", fields.len(), names.len());
            return Err(DatasetError::new(&path, message).at(number));
        }
        let filled = |at: Option<usize>| {
            at.map(|at| fields[at].as_ref()).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let fake = labels.fake(&fields[at_label], &path, number).map_err(|e| DatasetError {
            field: Some(names[at_label].clone()),
            ..DatasetError::from(e)
        })?;
        let split = match at_split {
            None => only.clone(),
            Some(at) if set.manifest.splits.contains_key(fields[at].as_ref()) => {
                fields[at].to_string()
            }
            Some(at) => {
                let message = format!("split '{}' is not in the manifest", short(&fields[at]));
                return Err(wrong(at, message));
            }
        };
        let sha256 = filled(at_sha256).map(|text| text.to_ascii_lowercase());
        if let (Some(at), Some(text)) = (at_sha256, &sha256)
            && !is_sha256(text)
        {
            return Err(wrong(at, format!("'{}' is no SHA-256", short(text))));
        }
        let periods = match at_periods {
            None => None,
            Some(at) => {
                let found = periods(&fields[at]).map_err(|message| wrong(at, message))?;
                if !fake && !found.is_empty() {
                    return Err(wrong(at, "a real file with forged stretches".to_owned()));
                }
                // Of a fake nothing here means that it is not known when it is forged.
                Some(found).filter(|found| !found.is_empty() || !fake)
            }
        };
        let id = fields[at_path].to_string();
        if let Err(why) = crate::bench::dataset::place::check(&id) {
            return Err(wrong(at_path, format!("'{}' {why}", short(&id))));
        }
        listing.push(Entry {
            id,
            fake,
            split,
            group: filled(at_group),
            generator: filled(at_generator),
            periods,
            sha256,
            list,
            line: Some(number),
        })?;
    }
    Ok(listing)
}

/// `start-end` in seconds, several parted by `;`; or `[[start, end], …]`.
fn periods(text: &str) -> Result<Vec<[f64; 2]>, String> {
    let wrong = || format!("'{}' is no list of start-end in seconds, parted by ;", short(text));
    let found: Vec<[f64; 2]> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|_| wrong())?
    } else {
        text.split(';')
            .filter(|part| !part.trim().is_empty())
            .map(|part| {
                let (start, end) = part.trim().split_once('-')?;
                Some([start.trim().parse().ok()?, end.trim().parse().ok()?])
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?
    };
    check_periods(&found)?;
    Ok(found)
}

/// That stretches of time are some.
pub fn check_periods(periods: &[[f64; 2]]) -> Result<(), String> {
    if periods.len() > MAX_PERIODS {
        return Err(format!("more than {MAX_PERIODS} forged stretches"));
    }
    match periods.iter().find(|[a, b]| !(a.is_finite() && b.is_finite() && 0.0 <= *a && a < b)) {
        Some([start, end]) => Err(format!("no stretch of time from {start} to {end} s")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::periods;

    #[test]
    fn forged_stretches_are_read_in_both_forms() {
        assert_eq!(periods("0.5-1.25; 3-4"), Ok(vec![[0.5, 1.25], [3.0, 4.0]]));
        assert_eq!(periods("[[0.5, 1.25]]"), Ok(vec![[0.5, 1.25]]));
        assert_eq!(periods(""), Ok(vec![]));
        for wrong in ["1", "2-1", "1-1", "a-b", "-1-2", "0-inf", "[[1]]", "[[2, 1]]", "[1, 2]"] {
            assert!(periods(wrong).is_err(), "{wrong}");
        }
    }
}
