"""Files of any container, made to order."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

from app.audio.limits import SAMPLE_RATE
from tests.support.recordings import to_pcm

PICTURE_S = 0.2
PICTURES = {"flv": "flv", "ogg": "libvpx"}  # codecs, where MPEG-4 does not do


@dataclass(frozen=True)
class Sound:
    """Samples of one track, and when they are heard.

    Attributes:
        samples: float32, shape (n_samples,), 16 kHz.
        at_s: seconds from the container's start.
    """

    samples: np.ndarray
    at_s: float = 0.0


@dataclass(frozen=True)
class Tracks:
    """A file to be made.

    Attributes:
        container: FFmpeg's name of its format.
        codec: of the sound.
        tracks: each one's sounds, in the order of time.
        default: the number of the default track; None: none is marked.
        video_s: the length of a picture beside the sound.
        is_live: written as it was recorded, so that it does not say how long it is.
    """

    container: str
    codec: str
    tracks: Sequence[Sequence[Sound]]
    default: int | None = None
    video_s: float = 0.0
    is_live: bool = False

    def content(self) -> bytes:
        """Return the file."""
        target = io.BytesIO()
        options = {"live": "1"} if self.is_live else {}
        with av.open(target, "w", format=self.container, options=options) as output:
            picture = None
            if self.video_s:
                picture = output.add_stream(PICTURES.get(self.container, "mpeg4"), rate=5)
                picture.width = picture.height = 32
            streams = [output.add_stream(self.codec, rate=SAMPLE_RATE) for _ in self.tracks]
            for number, stream in enumerate(streams):
                stream.layout = "mono"
                is_default = self.default == number
                stream.disposition = Disposition.default if is_default else Disposition(0)
            packets = []
            if picture is not None:
                for number in range(int(self.video_s / PICTURE_S)):
                    image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
                    image.pts, image.time_base = number, Fraction(1, 5)
                    packets += picture.encode(image)
                packets += picture.encode(None)
            for stream, sounds in zip(streams, self.tracks, strict=True):
                for sound in sounds:
                    packets += encoded(stream, sound)
                packets += stream.encode(None)
            packets.sort(key=lambda packet: float((packet.dts or 0) * packet.time_base))
            for packet in packets:
                output.mux(packet)
        return target.getvalue()


def encoded(stream: av.AudioStream, sound: Sound) -> list[av.Packet]:
    """Return the packets of one sound, with its times."""
    packets = []
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(
        format=stream.format, layout="mono", rate=SAMPLE_RATE, frame_size=size
    )
    whole = av.AudioFrame.from_ndarray(to_pcm(sound.samples).reshape(1, -1), "s16", "mono")
    whole.rate = SAMPLE_RATE
    first = round(sound.at_s * SAMPLE_RATE)
    n = 0
    for frame in [*resampler.resample(whole), *resampler.resample(None)]:
        frame.pts, frame.time_base = first + n, Fraction(1, SAMPLE_RATE)
        n += frame.samples
        packets += stream.encode(frame)
    return packets
