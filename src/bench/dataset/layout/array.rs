//! Metadata that are one JSON array, taken element by element: all of them at once would not fit
//! everywhere.

use std::fmt;
use std::io::{BufReader, Read as _};
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::DatasetError;

/// A training set's metadata are some hundred bytes a file and more.
const MAX_BYTES: u64 = 16 << 30;

/// Gives each element of the array in a file to `take`.
///
/// # Errors
/// The file cannot be read or is no such array, with the line; or what `take` says.
pub fn each<T: for<'de> Deserialize<'de>>(
    path: &Path,
    take: impl FnMut(T) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let file = std::fs::File::open(path)
        .map_err(|e| DatasetError::new(path, format!("cannot be read: {e}")))?;
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(file.take(MAX_BYTES)));
    let mut wrong = None;
    let seed = Elements { take, wrong: &mut wrong, of: PhantomData };
    let read = seed.deserialize(&mut json).and_then(|()| json.end());
    if let Some(error) = wrong {
        return Err(error);
    }
    read.map_err(|e| {
        let line = (e.line() > 0).then_some(e.line() as u64);
        DatasetError::new(path, format!("is no metadata of the set: {e}")).at(line)
    })
}

struct Elements<'a, T, F> {
    take: F,
    /// An error that knows more than serde's.
    wrong: &'a mut Option<DatasetError>,
    of: PhantomData<T>,
}

impl<'de, T, F> DeserializeSeed<'de> for Elements<'_, T, F>
where
    T: Deserialize<'de>,
    F: FnMut(T) -> Result<(), DatasetError>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de, T, F> Visitor<'de> for Elements<'_, T, F>
where
    T: Deserialize<'de>,
    F: FnMut(T) -> Result<(), DatasetError>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of objects, one a file")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<T>()? {
            if let Err(error) = (self.take)(element) {
                let message = error.message.clone();
                *self.wrong = Some(error);
                return Err(de::Error::custom(message));
            }
        }
        Ok(())
    }
}
