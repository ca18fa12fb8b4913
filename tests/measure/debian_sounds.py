"""Make a folder of recordings from Debian's packages of telephone prompts and music on hold.

    python -m tests.measure.debian_sounds FOLDER
    RECORDINGS=FOLDER python -m tests.measure.wer

One speaker in each of English, Spanish, French, Italian and Russian, with the texts that the
packages contain, and five pieces of music; 16 kHz G.722. CC BY-SA 3.0 (Russian CC BY 3.0), see each
package's `copyright`. Needs Debian's apt-get and dpkg-deb.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from tests.support.recordings import SAMPLE_RATE, wav

VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
SENTENCES = 40  # of each language
FEWEST_WORDS = 8
LONGEST_S = 25.0
MUSIC_PIECE_S = 60
MUSIC = "asterisk-moh-opsound-g722"


def unpacked(target: Path) -> Path:
    """Download and unpack the packages; return the folder `usr/share`."""
    names = [f"asterisk-core-sounds-{code}{end}" for code in VOICES for end in ("", "-g722")]
    subprocess.run(["apt-get", "download", "-q", *names, MUSIC], cwd=target, check=True)
    for package in target.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, target], check=True)
    return target / "usr" / "share"


def samples(path: Path) -> np.ndarray:
    """Return a raw G.722 file: float32, shape (n_samples,), 16 kHz."""
    with av.open(str(path), format="g722") as file:
        frames = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768


def sentences(share: Path, code: str) -> Iterator[tuple[Path, str]]:
    """Yield prompts with their texts, without digits but in English, where they are compared."""
    listed = share / "doc" / f"asterisk-core-sounds-{code}" / f"core-sounds-{code}.txt.gz"
    texts: set[str] = set()
    for line in gzip.decompress(listed.read_bytes()).decode("utf-8", "replace").splitlines():
        name, _, text = line.partition(":")
        path = share / "asterisk" / "sounds" / VOICES[code] / f"{name.strip()}.g722"
        text = text.strip()
        unclear = r"[\[\]<>*#]|\.\.\." + ("" if code == "en" else r"|\d")
        spoken = not re.search(unclear, text)
        if path.is_file() and spoken and len(text.split()) >= FEWEST_WORDS and text not in texts:
            texts.add(text)
            yield path, text


def collect(share: Path, folder: Path) -> list[dict[str, object]]:
    """Write the recordings into the folder; return the lines of its manifest."""
    lines: list[dict[str, object]] = []

    def add(name: str, found: np.ndarray, **further: object) -> None:
        (folder / name).write_bytes(wav(found))
        lines.append({"file": name, "seconds": round(found.size / SAMPLE_RATE, 3)} | further)

    for code in VOICES:
        chosen = 0
        for path, text in sentences(share, code):
            found = samples(path)
            if found.size > LONGEST_S * SAMPLE_RATE or chosen == SENTENCES:
                continue
            chosen += 1
            add(f"{code}_{path.stem}.wav", found, text=text, language=code, kind="speech")
    for path in sorted((share / "asterisk" / "moh").glob("*.g722")):
        found = samples(path)
        step = MUSIC_PIECE_S * SAMPLE_RATE
        for number, begin in enumerate(range(0, found.size - step // 4, step)):
            add(f"music_{path.stem}_{number}.wav", found[begin : begin + step], kind="music")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as target:
        lines = collect(unpacked(Path(target)), folder)
    (folder / "manifest.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False))
    print(f"{folder}: {len(lines)} recordings")


if __name__ == "__main__":
    main()
