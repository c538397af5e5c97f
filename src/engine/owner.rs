//! The inference owner: the one thread that runs networks on a device. Files ask it for work
//! through a bounded queue; it gathers requests of a kind, across tracks and files, into batches
//! of bounded cost.

use std::collections::VecDeque;

use candle_core::{Device, Tensor};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{
    detect::{Detector, face_swap::FaceSwap, voice_clone::VoiceClone},
    face::{Face, Rect, detect::MIN_CONFIDENCE},
    models::{
        silero_vad::{SileroVad, VadState},
        weights::{WeightStore, WeightsError},
        yunet::YuNet,
    },
    report::DetectorKind,
};

/// Names in the weights' manifest.
const YUNET: &str = "yunet";
const SILERO_VAD: &str = "silero-vad";

/// Requests that wait before those who ask have to wait themselves.
const QUEUE: usize = 32;
/// What a batch may hold: pixels of pictures searched for faces, face crops, windows of speech.
const BATCH_PIXELS: usize = 2_000_000;
const BATCH_CROPS: usize = 32;
const BATCH_WAVES: usize = 16;

/// Why a network gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct InferenceError(String);

impl InferenceError {
    /// candle's errors end in a backtrace where RUST_BACKTRACE asks for one; a report takes one line.
    fn new(what: &str, cause: &candle_core::Error) -> Self {
        let cause = cause.to_string();
        Self(format!("{what}: {}", cause.lines().next().unwrap_or_default()))
    }
}

pub type Answer<T> = Result<T, InferenceError>;

/// Probabilities of speech, and the state to go on with.
pub type Heard = (Vec<f32>, Box<VadState>);

/// Where the answer to one request arrives.
pub struct Ticket<T>(Receiver<Answer<T>>);

impl<T> Ticket<T> {
    /// Waits for the answer.
    pub fn wait(self) -> Answer<T> {
        self.0.recv().unwrap_or_else(|_| Err(InferenceError("the inference thread ended".into())))
    }

    pub fn is_ready(&self) -> bool {
        !self.0.is_empty()
    }
}

enum Request {
    /// RGB, width and height multiples of 32.
    Detect {
        rgb: Vec<u8>,
        width: usize,
        height: usize,
        reply: Sender<Answer<Vec<Face>>>,
    },
    Swap {
        crops: Vec<Vec<u8>>,
        reply: Sender<Answer<Vec<f32>>>,
    },
    /// Whole frames of sound, and the state that the stream's last request gave back.
    Activity {
        samples: Vec<f32>,
        state: Box<VadState>,
        reply: Sender<Answer<Heard>>,
    },
    Clone {
        waves: Vec<Vec<f32>>,
        reply: Sender<Answer<Vec<f32>>>,
    },
}

/// The networks that the chosen detectors need.
pub struct Networks {
    device: Device,
    detect: Option<YuNet>,
    swap: Option<FaceSwap>,
    activity: Option<SileroVad>,
    clone: Option<VoiceClone>,
}

impl Networks {
    pub fn load(
        store: &WeightStore,
        device: &Device,
        detectors: &[DetectorKind],
    ) -> Result<Self, WeightsError> {
        let faces = detectors.contains(&DetectorKind::FaceSwap);
        let voices = detectors.contains(&DetectorKind::VoiceClone);
        Ok(Self {
            device: device.clone(),
            detect: faces.then(|| YuNet::new(&store.load(YUNET, device)?)).transpose()?,
            swap: faces.then(|| FaceSwap::load(store, device)).transpose()?,
            activity: voices
                .then(|| SileroVad::new(&store.load(SILERO_VAD, device)?))
                .transpose()?,
            clone: voices.then(|| VoiceClone::load(store, device)).transpose()?,
        })
    }

    /// Names of the weights in use.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        names.extend(self.detect.as_ref().map(|_| YUNET));
        names.extend(self.swap.as_ref().map(Detector::weights));
        names.extend(self.activity.as_ref().map(|_| SILERO_VAD));
        names.extend(self.clone.as_ref().map(Detector::weights));
        names
    }

    pub fn face_swap(&self) -> Option<&FaceSwap> {
        self.swap.as_ref()
    }

    pub fn voice_clone(&self) -> Option<&VoiceClone> {
        self.clone.as_ref()
    }

    fn detect(&self, inputs: &[&[u8]], width: usize, height: usize) -> Answer<Vec<Vec<Face>>> {
        let network = self.detect.as_ref().ok_or_else(|| missing("face detector"))?;
        let mut bgr = Vec::with_capacity(inputs.len() * width * height * 3);
        for rgb in inputs {
            bgr.extend(rgb.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).map(f32::from));
        }
        let found = Tensor::from_vec(bgr, (inputs.len(), height, width, 3), &self.device)
            .and_then(|input| network.forward(&input, MIN_CONFIDENCE))
            .map_err(|e| InferenceError::new("face detector", &e))?;
        Ok(found
            .into_iter()
            .map(|faces| {
                faces
                    .into_iter()
                    .map(|f| Face {
                        rect: Rect { x0: f.x, y0: f.y, x1: f.x + f.width, y1: f.y + f.height },
                        confidence: f.score,
                        landmarks: f.landmarks,
                    })
                    .collect()
            })
            .collect())
    }

    fn activity(&self, samples: &[f32], mut state: Box<VadState>) -> Answer<Heard> {
        let network = self.activity.as_ref().ok_or_else(|| missing("voice activity"))?;
        network
            .forward(samples, &mut state)
            .map(|probabilities| (probabilities, state))
            .map_err(|e| InferenceError::new("voice activity", &e))
    }
}

fn missing(what: &str) -> InferenceError {
    InferenceError(format!("{what}: not loaded for the chosen detectors"))
}

fn score<D: Detector>(detector: Option<&D>, windows: &[D::Window]) -> Answer<Vec<f32>> {
    let detector = detector.ok_or_else(|| missing("detector"))?;
    detector.score(windows).map_err(|e| InferenceError::new(detector.weights(), &e))
}

/// How files ask. Cloned for each; the owner ends when the last clone is gone.
#[derive(Clone)]
pub struct Client(Sender<Request>);

impl Client {
    fn ask<T>(&self, make: impl FnOnce(Sender<Answer<T>>) -> Request) -> Ticket<T> {
        let (reply, ticket) = bounded(1);
        // If the owner is gone the reply's sender is dropped here, and `wait` says so.
        let _ = self.0.send(make(reply));
        Ticket(ticket)
    }

    pub fn detect(&self, rgb: Vec<u8>, width: usize, height: usize) -> Ticket<Vec<Face>> {
        self.ask(|reply| Request::Detect { rgb, width, height, reply })
    }

    pub fn swap(&self, crops: Vec<Vec<u8>>) -> Ticket<Vec<f32>> {
        self.ask(|reply| Request::Swap { crops, reply })
    }

    pub fn activity(&self, samples: Vec<f32>, state: Box<VadState>) -> Ticket<Heard> {
        self.ask(|reply| Request::Activity { samples, state, reply })
    }

    pub fn clone_scores(&self, waves: Vec<Vec<f32>>) -> Ticket<Vec<f32>> {
        self.ask(|reply| Request::Clone { waves, reply })
    }
}

/// The queue's two ends.
pub fn queue() -> (Client, Inbox) {
    let (send, receive) = bounded(QUEUE);
    (Client(send), Inbox(receive))
}

pub struct Inbox(Receiver<Request>);

impl Inbox {
    /// Serves until every [`Client`] is gone.
    pub fn serve(self, networks: &Networks) {
        let mut waiting: VecDeque<Request> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.0.recv() {
                    Ok(request) => waiting.push_back(request),
                    Err(_) => return,
                }
            }
            // Whatever came meanwhile may share the batch.
            while waiting.len() < QUEUE
                && let Ok(request) = self.0.try_recv()
            {
                waiting.push_back(request);
            }
            run_oldest(networks, &mut waiting);
        }
    }
}

/// Runs the oldest request with as many like it as the budget allows, in order.
fn run_oldest(networks: &Networks, waiting: &mut VecDeque<Request>) {
    // A requester that gave up has dropped its ticket; the answer then goes nowhere.
    match waiting.pop_front() {
        None => {}
        Some(Request::Detect { rgb, width, height, reply }) => {
            let room = (BATCH_PIXELS / (width * height)).max(1) - 1;
            let mut batch = vec![(rgb, reply)];
            take_like(waiting, room, |request| match request {
                Request::Detect { rgb, width: w, height: h, reply }
                    if w == width && h == height =>
                {
                    batch.push((rgb, reply));
                    Ok(1)
                }
                other => Err(other),
            });
            let inputs: Vec<&[u8]> = batch.iter().map(|(rgb, _)| rgb.as_slice()).collect();
            match networks.detect(&inputs, width, height) {
                Ok(found) => {
                    for ((_, reply), faces) in batch.iter().zip(found) {
                        let _ = reply.send(Ok(faces));
                    }
                }
                Err(e) => batch.iter().for_each(|(_, reply)| {
                    let _ = reply.send(Err(e.clone()));
                }),
            }
        }
        Some(Request::Swap { crops, reply }) => {
            let mut windows = crops;
            let mut parts = vec![(windows.len(), reply)];
            take_like(
                waiting,
                BATCH_CROPS.saturating_sub(windows.len()),
                |request| match request {
                    Request::Swap { crops, reply } => {
                        let n = crops.len();
                        parts.push((n, reply));
                        windows.extend(crops);
                        Ok(n)
                    }
                    other => Err(other),
                },
            );
            share(score(networks.swap.as_ref(), &windows), parts);
        }
        Some(Request::Clone { waves, reply }) => {
            let mut windows = waves;
            let mut parts = vec![(windows.len(), reply)];
            take_like(
                waiting,
                BATCH_WAVES.saturating_sub(windows.len()),
                |request| match request {
                    Request::Clone { waves, reply } => {
                        let n = waves.len();
                        parts.push((n, reply));
                        windows.extend(waves);
                        Ok(n)
                    }
                    other => Err(other),
                },
            );
            share(score(networks.clone.as_ref(), &windows), parts);
        }
        Some(Request::Activity { samples, state, reply }) => {
            let _ = reply.send(networks.activity(&samples, state));
        }
    }
}

/// Moves requests that `take` accepts out of `waiting` until their cost has filled `room`.
fn take_like(
    waiting: &mut VecDeque<Request>,
    mut room: usize,
    mut take: impl FnMut(Request) -> Result<usize, Request>,
) {
    for _ in 0..waiting.len() {
        let Some(request) = waiting.pop_front() else { return };
        if room == 0 {
            waiting.push_back(request);
            continue;
        }
        match take(request) {
            Ok(cost) => room = room.saturating_sub(cost),
            Err(other) => waiting.push_back(other),
        }
    }
}

/// Gives each requester its part of a batch's scores.
fn share(scores: Answer<Vec<f32>>, parts: Vec<(usize, Sender<Answer<Vec<f32>>>)>) {
    let mut from = 0;
    for (n, reply) in parts {
        let part = match &scores {
            Ok(scores) => scores
                .get(from..from + n)
                .map(<[f32]>::to_vec)
                .ok_or_else(|| InferenceError("fewer scores than windows".into())),
            Err(e) => Err(e.clone()),
        };
        let _ = reply.send(part);
        from += n;
    }
}
