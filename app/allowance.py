"""How much a key may: requests a minute, requests at once, minutes of audio an hour.

The balancer counts, since it alone sees the requests of all workers on all hosts; a worker alone
knows whose key it is. So each tells the other, in headers that never leave the service: the
balancer what it has counted of the key that was sent, the worker what that key may. For some
seconds after an answer to a key the balancer refuses by itself, before the queue
(`deploy/limits.lua`); otherwise it is done here, where the file of keys is read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from app.errors import OverLimit

# From the balancer: requests of this key within a minute and inside now, this one included;
# seconds of audio it had within an hour, and seconds until it may have more, as far as is known.
COUNTED = "X-Key-Counted"
COUNTS = re.compile(r"[0-9]{1,10}( [0-9]{1,10}){3}", re.ASCII)
# To the balancer: the key's name and what it may; 0: no limit.
MAY = "X-Key-May"
# To the balancer: seconds of audio that this answer is the text of.
AUDIO = "X-Key-Audio"

MINUTE_S = 60
MOST = 1_000_000  # of anything; what is more is no limit


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one key may; None: as much as it likes.

    Attributes:
        requests_per_minute: transcriptions begun within a minute.
        concurrent_requests: transcriptions at once, those that wait for a slot included.
        audio_minutes_per_hour: minutes of audio transcribed within an hour. The recording that
            reaches it is finished; the next one is refused.
    """

    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    audio_minutes_per_hour: int | None = None

    def header(self, name: str) -> str:
        """What the balancer is told of the key of this name."""
        audio_s = (self.audio_minutes_per_hour or 0) * MINUTE_S
        return f"{name} {self.requests_per_minute or 0} {self.concurrent_requests or 0} {audio_s}"

    def check(self, counted: str, patience_s: int) -> None:
        """Refuse a request that is one too many.

        Args:
            counted: the balancer's header; what has another form counts nothing.
            patience_s: after how many seconds a request that was one too many at once may come
                again.

        Raises:
            OverLimit: with the limit's name and the seconds after which there is room again.
        """
        if not COUNTS.fullmatch(counted):
            return
        requests, inside, audio_s, room_s = map(int, counted.split())
        if self.requests_per_minute is not None and requests > self.requests_per_minute:
            raise OverLimit(
                "This key has sent its requests of this minute. Send the request again later.",
                "key_rate",
                math.ceil(MINUTE_S / self.requests_per_minute),
            )
        if self.concurrent_requests is not None and inside > self.concurrent_requests:
            raise OverLimit(
                "This key has all its requests in progress. Send the request again later.",
                "key_concurrency",
                patience_s,
            )
        limit_min = self.audio_minutes_per_hour
        if limit_min is not None and audio_s >= limit_min * MINUTE_S:
            raise OverLimit(
                "This key has had its minutes of audio of this hour. Send the request again later.",
                "key_audio",
                max(room_s, MINUTE_S),
            )


LIMITS = tuple(each.name for each in fields(Allowance))
