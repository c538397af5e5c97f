//! The inference owner: the one thread that runs networks on a device. Files ask it for work
//! through a bounded queue; it gathers requests of a kind, across tracks and files, into batches
//! of bounded cost.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

pub use super::runner::InferenceError;
use super::{
    networks::{Heard, Networks},
    runner::{Answer, Kind, Runner},
};
use crate::{
    detect::{
        face_swap::{FaceCrop, FaceScore},
        voice_clone::VoiceScore,
    },
    face::Face,
    models::{
        mark_net::{Input, Marks},
        silero_vad::VadState,
        speaker_encoder::Embedding,
    },
};

/// Requests that wait before those who ask have to wait themselves.
const QUEUE: usize = 32;
/// What a batch may hold: pixels of pictures searched for faces, face crops, windows of speech.
const BATCH_PIXELS: usize = 2_000_000;
const BATCH_CROPS: usize = 32;
const BATCH_WAVES: usize = 16;

/// How often one who waits looks whether the file was given up.
const LOOK: Duration = Duration::from_millis(100);

/// Where the answer to one request arrives.
pub struct Ticket<T> {
    answer: Receiver<Answer<T>>,
    stop: Arc<AtomicBool>,
}

impl<T> Ticket<T> {
    /// Waits for the answer, unless the file is given up.
    pub fn wait(self) -> Answer<T> {
        loop {
            match self.answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Relaxed) => {
                    return Err(InferenceError("the file was given up".into()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(InferenceError("the inference thread ended".into()));
                }
            }
        }
    }

    pub fn is_ready(&self) -> bool {
        !self.answer.is_empty()
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
        crops: Vec<FaceCrop>,
        reply: Sender<Answer<Vec<FaceScore>>>,
    },
    /// Whole frames of sound, and the state that the stream's last request gave back.
    Activity {
        samples: Vec<f32>,
        state: Box<VadState>,
        reply: Sender<Answer<Heard>>,
    },
    Clone {
        waves: Vec<Vec<f32>>,
        reply: Sender<Answer<Vec<VoiceScore>>>,
    },
    /// Stretches of sound of any length.
    Watermark {
        waves: Vec<Vec<f32>>,
        reply: Sender<Answer<Vec<Option<f32>>>>,
    },
    Marks {
        picture: Box<Input>,
        reply: Sender<Answer<Vec<Marks>>>,
    },
    /// Of one length.
    Speaker {
        waves: Vec<Vec<f32>>,
        reply: Sender<Answer<Vec<Embedding>>>,
    },
}

/// How files ask. Cloned for each; the owner ends when the last clone is gone.
#[derive(Clone)]
pub struct Client {
    requests: Sender<Request>,
    /// The file that asks is given up.
    stop: Arc<AtomicBool>,
}

impl Client {
    /// For a file that is given up once `stop` is set: nobody waits any more then.
    pub fn until(&self, stop: &Arc<AtomicBool>) -> Self {
        Self { requests: self.requests.clone(), stop: Arc::clone(stop) }
    }

    fn ask<T>(&self, make: impl FnOnce(Sender<Answer<T>>) -> Request) -> Ticket<T> {
        let (reply, answer) = bounded(1);
        let mut request = make(reply);
        // If the owner is gone the reply's sender is dropped here, and `wait` says so.
        while let Err(SendTimeoutError::Timeout(again)) = self.requests.send_timeout(request, LOOK)
        {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            request = again;
        }
        Ticket { answer, stop: Arc::clone(&self.stop) }
    }

    pub fn detect(&self, rgb: Vec<u8>, width: usize, height: usize) -> Ticket<Vec<Face>> {
        self.ask(|reply| Request::Detect { rgb, width, height, reply })
    }

    pub fn swap(&self, crops: Vec<FaceCrop>) -> Ticket<Vec<FaceScore>> {
        self.ask(|reply| Request::Swap { crops, reply })
    }

    /// Where marks are and were: one answer.
    pub fn marks(&self, picture: Input) -> Ticket<Vec<Marks>> {
        self.ask(|reply| Request::Marks { picture: Box::new(picture), reply })
    }

    pub fn activity(&self, samples: Vec<f32>, state: Box<VadState>) -> Ticket<Heard> {
        self.ask(|reply| Request::Activity { samples, state, reply })
    }

    pub fn clone_scores(&self, waves: Vec<Vec<f32>>) -> Ticket<Vec<VoiceScore>> {
        self.ask(|reply| Request::Clone { waves, reply })
    }

    /// How surely each stretch of sound carries PerTh; none for digital silence.
    pub fn watermarks(&self, waves: Vec<Vec<f32>>) -> Ticket<Vec<Option<f32>>> {
        self.ask(|reply| Request::Watermark { waves, reply })
    }

    pub fn speakers(&self, waves: Vec<Vec<f32>>) -> Ticket<Vec<Embedding>> {
        self.ask(|reply| Request::Speaker { waves, reply })
    }
}

/// The queue's two ends.
pub fn queue() -> (Client, Inbox) {
    let (send, receive) = bounded(QUEUE);
    (Client { requests: send, stop: Arc::default() }, Inbox(receive))
}

pub struct Inbox(Receiver<Request>);

impl Inbox {
    /// Serves until every [`Client`] is gone.
    pub fn serve(self, runner: &Runner<Networks>) {
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
            run_oldest(runner, &mut waiting);
        }
    }
}

/// Runs the oldest request with as many like it as the budget allows, in order.
fn run_oldest(runner: &Runner<Networks>, waiting: &mut VecDeque<Request>) {
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
            let (pictures, replies): (Vec<Vec<u8>>, Vec<_>) = batch.into_iter().unzip();
            let parts = vec![1; pictures.len()];
            let run = |networks: &Networks, pictures: &[Vec<u8>]| {
                networks.detect(pictures, width, height)
            };
            let answers = runner.run(Kind::Detect, &pictures, &parts, width * height, run);
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _ = reply.send(answer.and_then(|mut found| found.pop().ok_or_else(unanswered)));
            }
        }
        Some(Request::Marks { picture, reply }) => {
            let (w, h) = (picture.width, picture.height);
            let room = (BATCH_PIXELS / (w * h).max(1)).max(1) - 1;
            let (mut pictures, mut parts) = (vec![*picture], vec![(1, reply)]);
            take_like(waiting, room, |request| match request {
                Request::Marks { picture, reply } if (picture.width, picture.height) == (w, h) => {
                    pictures.push(*picture);
                    parts.push((1, reply));
                    Ok(1)
                }
                other => Err(other),
            });
            share(parts, |parts| runner.run(Kind::Marks, &pictures, parts, w * h, Networks::marks));
        }
        Some(Request::Swap { crops, reply }) => {
            let (windows, parts) =
                gather(waiting, BATCH_CROPS, crops, reply, |request| match request {
                    Request::Swap { crops, reply } => Ok((crops, reply)),
                    other => Err(other),
                });
            share(parts, |parts| runner.run(Kind::Swap, &windows, parts, 1, Networks::swap));
        }
        Some(Request::Clone { waves, reply }) => {
            let (windows, parts) =
                gather(waiting, BATCH_WAVES, waves, reply, |request| match request {
                    Request::Clone { waves, reply } => Ok((waves, reply)),
                    other => Err(other),
                });
            share(parts, |parts| {
                runner.run(Kind::Clone, &windows, parts, 1, Networks::clone_scores)
            });
        }
        Some(Request::Watermark { waves, reply }) => {
            let parts = vec![(waves.len(), reply)];
            share(parts, |parts| {
                runner.run(Kind::Watermark, &waves, parts, 1, Networks::watermarks)
            });
        }
        Some(Request::Speaker { waves, reply }) => {
            let (windows, parts) =
                gather(waiting, BATCH_WAVES, waves, reply, |request| match request {
                    Request::Speaker { waves, reply } => Ok((waves, reply)),
                    other => Err(other),
                });
            share(parts, |parts| runner.run(Kind::Speaker, &windows, parts, 1, Networks::speakers));
        }
        Some(Request::Activity { samples, state, reply }) => {
            let run = |networks: &Networks, windows: &[(Vec<f32>, Box<VadState>)]| {
                windows.iter().map(|(samples, state)| networks.activity(samples, state)).collect()
            };
            let mut answers = runner.run(Kind::Activity, &[(samples, state)], &[1], 1, run);
            let answer = answers.pop().unwrap_or_else(|| Err(unanswered()));
            let _ = reply.send(answer.and_then(|mut heard| heard.pop().ok_or_else(unanswered)));
        }
    }
}

/// A request's windows with those of its like in `waiting`, about `most` in all, and how many of them
/// each reply waits for.
fn gather<W, R>(
    waiting: &mut VecDeque<Request>,
    most: usize,
    mut windows: Vec<W>,
    reply: R,
    like: impl Fn(Request) -> Result<(Vec<W>, R), Request>,
) -> (Vec<W>, Vec<(usize, R)>) {
    let mut parts = vec![(windows.len(), reply)];
    take_like(waiting, most.saturating_sub(windows.len()), |request| {
        let (more, reply) = like(request)?;
        let n = more.len();
        parts.push((n, reply));
        windows.extend(more);
        Ok(n)
    });
    (windows, parts)
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

fn unanswered() -> InferenceError {
    InferenceError("no answer".into())
}

/// Gives each requester its own scores.
fn share<T>(
    parts: Vec<(usize, Sender<Answer<Vec<T>>>)>,
    run: impl FnOnce(&[usize]) -> Vec<Answer<Vec<T>>>,
) {
    let (parts, replies): (Vec<usize>, Vec<_>) = parts.into_iter().unzip();
    for (reply, answer) in replies.into_iter().zip(run(&parts)) {
        let _ = reply.send(answer);
    }
}
