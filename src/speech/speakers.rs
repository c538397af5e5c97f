//! Whose speech each window is: the embeddings of a stream's windows are clustered, in bounded
//! memory.
//!
//! Agglomerative clustering with average linkage: the two clusters whose windows are on average
//! most alike become one, until no two are alike enough to be one speaker. Where a stream has more
//! windows than are kept apart, those most alike are merged on the way, so that memory and work
//! stay bounded however long it is.

use std::collections::BTreeMap;

/// Clusters that are kept apart while a stream runs: some four minutes of speech.
const KEPT: usize = 256;
/// Once there are more, the most alike are merged until this many are left.
const REDUCED: usize = KEPT / 2;
/// Speakers a stream.
pub const MAX_SPEAKERS: usize = 32;

/// When clusters are one speaker.
#[derive(Debug, Clone, Copy)]
pub struct SpeakerRule {
    /// The mean similarity (cosine) of two clusters' windows from which on they are one speaker.
    pub same: f32,
    /// A cluster of fewer windows is no speaker of its own, but a moment where one spoke after the
    /// other, or a laugh. It goes to the speaker that it is most like.
    pub least: usize,
}

impl SpeakerRule {
    /// For the windows of [`super::windows`]; measured in `docs/models/speaker.md`.
    pub const WINDOWS: Self = Self { same: 0.62, least: 5 };
}

/// The windows of one stream, each with an embedding of length 1.
#[derive(Debug, Clone, Default)]
pub struct Speakers {
    /// In the order of their first windows.
    clusters: Vec<Cluster>,
    /// For each window the first one of the cluster that it was merged into, or itself.
    merged: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Cluster {
    first: u32,
    windows: usize,
    sum: Vec<f32>,
}

impl Cluster {
    /// The mean similarity of the windows of the two.
    fn likeness(&self, other: &Self) -> f32 {
        let dot: f32 = self.sum.iter().zip(&other.sum).map(|(a, b)| a * b).sum();
        dot / (self.windows * other.windows) as f32
    }
}

impl Speakers {
    /// The next window's embedding, as long as all others.
    pub fn push(&mut self, embedding: &[f32]) {
        let first = self.merged.len() as u32;
        self.merged.push(first);
        self.clusters.push(Cluster { first, windows: 1, sum: embedding.to_vec() });
        if self.clusters.len() > KEPT {
            self.merge(|_, clusters| clusters > REDUCED);
        }
    }

    /// The speaker of each window, in the order of [`push`](Self::push), counted from 0 in the
    /// order of their first windows.
    pub fn finish(mut self, rule: &SpeakerRule) -> Vec<usize> {
        self.merge(|likeness, clusters| likeness >= rule.same || clusters > MAX_SPEAKERS);
        while self.clusters.len() > 1
            && let Some(small) = (0..self.clusters.len()).min_by_key(|i| self.clusters[*i].windows)
            && self.clusters[small].windows < rule.least
        {
            let likeness = |i: &usize| self.clusters[*i].likeness(&self.clusters[small]);
            let nearest = (0..self.clusters.len())
                .filter(|i| *i != small)
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let Some(nearest) = nearest else { break };
            self.join(small.min(nearest), small.max(nearest));
            self.clusters.remove(small.max(nearest));
        }
        let mut numbers = BTreeMap::new();
        // What a window was merged into comes before it, so that one look goes to the end.
        for window in 0..self.merged.len() {
            self.merged[window] = self.merged[self.merged[window] as usize];
        }
        let number = |first: &u32| {
            let next = numbers.len();
            *numbers.entry(*first).or_insert(next)
        };
        self.merged.iter().map(number).collect()
    }

    /// Merges the two most alike for as long as `go_on` says so of their likeness and of the
    /// number of clusters.
    fn merge(&mut self, go_on: impl Fn(f32, usize) -> bool) {
        let n = self.clusters.len();
        let mut likeness = vec![0.0f32; n * n];
        for a in 0..n {
            for b in 0..a {
                let l = self.clusters[a].likeness(&self.clusters[b]);
                (likeness[a * n + b], likeness[b * n + a]) = (l, l);
            }
        }
        let mut left: Vec<usize> = (0..n).collect();
        loop {
            let mut best: Option<(f32, usize, usize)> = None;
            for (i, a) in left.iter().enumerate() {
                for b in &left[i + 1..] {
                    let l = likeness[a * n + b];
                    if best.is_none_or(|(most, _, _)| l > most) {
                        best = Some((l, *a, *b));
                    }
                }
            }
            let Some((most, a, b)) = best else { break };
            if !go_on(most, left.len()) {
                break;
            }
            let (na, nb) = (self.clusters[a].windows as f32, self.clusters[b].windows as f32);
            for c in &left {
                let l = (na * likeness[a * n + c] + nb * likeness[b * n + c]) / (na + nb);
                (likeness[a * n + c], likeness[c * n + a]) = (l, l);
            }
            self.join(a, b);
            left.retain(|c| *c != b);
        }
        let mut index = 0;
        self.clusters.retain(|_| {
            index += 1;
            left.binary_search(&(index - 1)).is_ok()
        });
    }

    /// Adds the windows of cluster `b` to those of `a`, which comes before it.
    fn join(&mut self, a: usize, b: usize) {
        let Cluster { first, windows, sum } = &self.clusters[b];
        let (first, windows, sum) = (*first, *windows, sum.clone());
        let into = &mut self.clusters[a];
        self.merged[first as usize] = into.first;
        into.windows += windows;
        into.sum.iter_mut().zip(&sum).for_each(|(a, b)| *a += b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SpeakerRule = SpeakerRule { same: 0.7, least: 3 };

    /// Unit vectors around `voice`'s own axis; two of one voice are alike by about 0.9, of two
    /// voices by about 0.1.
    fn window(voice: usize, seed: usize) -> Vec<f32> {
        let mut state = (voice * 7_919 + seed) as u32;
        let mut v: Vec<f32> = (0..64)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 * 0.12
            })
            .collect();
        v[voice] += 1.0;
        let length = v.iter().map(|v| v * v).sum::<f32>().sqrt();
        v.iter_mut().for_each(|v| *v /= length);
        v
    }

    fn speakers(voices: &[usize]) -> Vec<usize> {
        let mut speakers = Speakers::default();
        for (i, voice) in voices.iter().enumerate() {
            speakers.push(&window(*voice, i));
            assert!(speakers.clusters.len() <= KEPT);
        }
        speakers.finish(&RULE)
    }

    #[test]
    fn nothing_is_nobody_and_one_window_is_one_speaker() {
        assert!(speakers(&[]).is_empty());
        assert_eq!(speakers(&[5]), [0]);
        assert_eq!(speakers(&[5, 9]), [0, 0]);
    }

    #[test]
    fn voices_are_told_apart_and_counted_in_the_order_of_their_first_words() {
        let voices = [4, 4, 2, 2, 2, 4, 7, 7, 2, 7, 4];
        assert_eq!(speakers(&voices), [0, 0, 1, 1, 1, 0, 2, 2, 1, 2, 0]);
        let backwards: Vec<usize> = voices.iter().rev().copied().collect();
        assert_eq!(speakers(&backwards), [0, 1, 2, 1, 1, 0, 2, 2, 2, 0, 0]);
    }

    #[test]
    fn a_cluster_of_few_windows_goes_to_the_voice_that_it_is_most_like() {
        let mut speakers = Speakers::default();
        for i in 0..8 {
            speakers.push(&window(i / 4, i));
        }
        // Between the two voices, nearer to the second.
        let mut mixture: Vec<f32> =
            window(0, 90).iter().zip(window(1, 91)).map(|(a, b)| 0.5 * a + 0.7 * b).collect();
        let length = mixture.iter().map(|v| v * v).sum::<f32>().sqrt();
        mixture.iter_mut().for_each(|v| *v /= length);
        speakers.push(&mixture);
        let found = speakers.finish(&SpeakerRule { same: 0.9, least: 3 });
        assert_eq!(found, [0, 0, 0, 0, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn hours_of_speech_stay_in_bounded_memory() {
        // Three hours of two voices that take turns of ten windows.
        let voices: Vec<usize> = (0..3 * 3_600).map(|i| i / 10 % 2).collect();
        assert_eq!(speakers(&voices), voices);
    }

    #[test]
    fn there_are_at_most_so_many_speakers() {
        let voices: Vec<usize> = (0..60 * 4).map(|i| i / 4).collect();
        let found = speakers(&voices);
        assert_eq!(found.iter().max(), Some(&(MAX_SPEAKERS - 1)));
    }
}
