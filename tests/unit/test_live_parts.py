"""The parts of live transcription: agreement, audio formats, speech, turns, options, secrets."""

from __future__ import annotations

import time
from itertools import pairwise

import av
import numpy as np
import pytest

from app.config import Config
from app.errors import InvalidRequest
from app.keys import passes
from app.live.agreement import Agreement, Word
from app.live.client_secret import Grant, check, sign
from app.live.codec import TABLES, Codec
from app.live.options import AudioFormat, Options, TurnDetection
from app.live.session import LEAD
from app.live.turn import FORCE_S, LEAD_S, TRIM_S, Turn
from app.live.voice import Voice, samples_of
from tests.support.recordings import recording, to_pcm


def words(text: str, start: float = 0.0, each: float = 0.5) -> list[Word]:
    """Return a text's words, one after another."""
    return [
        Word(f" {word}", start + number * each, start + (number + 1) * each)
        for number, word in enumerate(text.split())
    ]


def texts(found: list[Word]) -> str:
    return "".join(word.text for word in found).strip()


class TestAgreement:
    @pytest.mark.parametrize(
        ("start", "end", "text"),
        [(-0.86, 0.28, "in"), (-0.14, 0.14, "in"), (-0.88, 0.12, ""), (-0.5, -0.02, "")],
    )
    def test_a_word_next_to_a_turns_start_is_said_once(self, start, end, text):
        assert texts(Agreement().unsent([Word(" in", start, end)])) == text

    def test_only_words_of_two_successive_windows_are_confirmed(self):
        agreement = Agreement()

        assert agreement.insert(words("the quick brown")) == []
        assert texts(agreement.insert(words("the quick crown fox"))) == "the quick"
        assert texts(agreement.insert(words("the quick crown fox jumps"))) == "crown fox"

    def test_confirmed_words_are_never_sent_again_though_a_window_changes_them(self):
        agreement = Agreement()
        agreement.insert(words("one two three"))
        agreement.insert(words("one two three four"))

        agreement.insert(words("won too tree four five"))

        assert texts(agreement.confirmed) == "one two three four"

    def test_words_that_a_trimmed_window_repeats_are_dropped(self):
        agreement = Agreement()
        agreement.insert(words("and so it goes"))
        agreement.insert(words("and so it goes"))

        repeated = words("it goes on and on", start=1.9, each=0.4)
        agreement.insert(repeated)
        agreement.insert(repeated)

        assert texts(agreement.confirmed) == "and so it goes on and on"

    def test_a_full_stop_at_the_end_of_a_window_waits_for_the_next_one(self):
        agreement = Agreement()
        agreement.insert(words("He said"))

        assert texts(agreement.insert(words("he said."))) == "he"
        assert texts(agreement.insert(words("he said that."))) == "said"

    def test_last_words_that_a_window_loses_though_they_are_speech_are_kept(self):
        agreement = Agreement()
        agreement.insert(words("of about 1455"))

        assert texts(agreement.insert(words("of about"), spoken_s=1.6)) == "of about"
        assert texts(agreement.finish()) == "1455"

    def test_last_words_that_a_window_drops_are_dropped_where_nothing_was_spoken(self):
        agreement = Agreement()
        agreement.insert(words("of about you"))

        agreement.insert(words("of about"), spoken_s=1.1)

        assert agreement.finish() == []

    def test_the_last_window_confirms_everything(self):
        agreement = Agreement()
        agreement.insert(words("one two"))

        assert texts(agreement.accept(words("one too three"))) == "one too three"


class TestCodec:
    @pytest.mark.parametrize(
        ("kind", "name"), [("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")]
    )
    def test_g711_is_decoded_as_ffmpeg_does(self, kind, name):
        decoder = av.CodecContext.create(name, "r")
        decoder.sample_rate, decoder.layout, decoder.format = 8000, "mono", "s16"

        (frame,) = decoder.decode(av.Packet(bytes(range(256))))

        assert np.array_equal(TABLES[kind], frame.to_ndarray()[0])

    def test_24_khz_in_small_pieces_is_the_same_speech_at_16_khz(self):
        speech = recording("austen_0890.wav").waveform()
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
        frame = av.AudioFrame.from_ndarray(to_pcm(speech).reshape(1, -1), "s16", "mono")
        frame.sample_rate = 16_000
        sent = resampler.resample(frame)[0].to_ndarray()[0].tobytes()

        codec = Codec(AudioFormat())
        sizes = [0, *sorted({n * 1001 for n in range(1, len(sent) // 1001)}), len(sent)]
        heard = np.concatenate([codec.decode(sent[a:b]) for a, b in pairwise(sizes)])

        n = min(heard.size, speech.size)
        assert abs(heard.size - speech.size) < 64
        assert np.corrcoef(heard[:n], speech[:n])[0, 1] > 0.999

    def test_16_khz_is_taken_as_it_is(self):
        codec = Codec(AudioFormat("audio/pcm", 16_000))

        heard = [codec.decode(piece) for piece in (b"\x01", b"\x00\x02\x00\x03", b"\x00")]

        assert np.concatenate(heard).tolist() == [1, 2, 3]


class TestVoice:
    def test_speech_is_found_between_silences_whatever_the_pieces(self):
        speech = recording("speech_after_20s_silence.flac").waveform()[: 16_000 * 32]
        pcm = to_pcm(speech).astype(np.int16)

        def changes(size: int) -> list[tuple[bool, int]]:
            voice = Voice(0.5, samples_of(500))
            pieces = [pcm[begin : begin + size] for begin in range(0, pcm.size, size)]
            return [(each.starts, each.at) for piece in pieces for each in voice.feed(piece)]

        found = changes(1536)
        assert found[0][0]
        assert 19.5 < found[0][1] / 16_000 < 21.5
        assert changes(1536) == changes(3072)

    @pytest.mark.parametrize(
        "name", ["silence_3s.wav", "noise_white_6s.flac", "tone_440hz_5s.flac"]
    )
    def test_what_is_no_speech_starts_nothing(self, name):
        pcm = to_pcm(recording(name).waveform()).astype(np.int16)

        assert list(Voice(0.5, 8000).feed(pcm)) == []


class TestTurn:
    def test_a_long_window_loses_its_confirmed_sentences(self):
        turn = Turn("item", 0)
        turn.append(np.zeros(int(16_000 * (TRIM_S + 1)), np.int16), 0.0)
        spoken = words("one two. three four", each=2.0)
        turn.answer(turn.window(), spoken)

        turn.answer(turn.window(), spoken)

        assert turn.window().start_s == 4.0

    def test_a_window_begins_with_audio_of_the_turn_before_in_its_language(self):
        turn = Turn("item", 0, "en", np.ones(LEAD, np.int16).tobytes())
        turn.append(np.zeros(16_000, np.int16), 0.0)
        window = turn.window("en")

        heard = [Word(" Before.", 0.2, 0.9), Word(" Hello", LEAD_S + 0.1, LEAD_S + 0.6)]
        confirmed = [turn.answer(window, heard) for _ in range(2)]

        assert (window.start_s, window.seconds) == (-LEAD_S, LEAD_S + 1)
        assert list(map(texts, confirmed)) == ["", "Hello"]

    @pytest.mark.parametrize("language", ["fr", None], ids=["another language", "not known yet"])
    def test_a_window_has_no_audio_of_another_language(self, language):
        turn = Turn("item", 0, language, np.ones(LEAD, np.int16).tobytes())
        turn.append(np.zeros(16_000, np.int16), 0.0)

        assert not any(turn.window("en").pcm)
        assert turn.window("en").start_s == 0.0

    def test_a_window_that_never_agrees_is_confirmed_before_it_exceeds_whispers(self):
        turn = Turn("item", 0)
        turn.append(np.zeros(int(16_000 * (FORCE_S + 1)), np.int16), 0.0)

        confirmed = turn.answer(turn.window(), words("a b c d e f", each=4.0))

        assert texts(confirmed) == "a b c"
        assert turn.held_s < FORCE_S

    def test_a_window_is_due_after_new_speech_or_at_a_pause(self):
        turn = Turn("item", 0)
        turn.append(np.zeros(8_000, np.int16), 0.0)
        turn.voiced = 7_000
        assert not turn.due(1.0)

        turn.append(np.zeros(3_200, np.int16), 0.0)
        assert turn.due(1.0)  # a pause

        turn.answer(turn.window(), [])
        turn.append(np.zeros(32_000, np.int16), 0.0)
        assert not turn.due(1.0)  # silence

    def test_silence_after_a_word_that_is_confirmed_does_not_wait_for_the_pool(self):
        turn = Turn("item", 0)
        turn.append(np.zeros(16_000, np.int16), 0.0)
        turn.voiced = 14_000
        for _ in range(2):
            turn.answer(turn.window(), [Word(" Hello.", 0.1, 0.9)])
        turn.voiced = 17_000
        for _ in range(60):
            turn.append(np.zeros(16_000, np.int16), 0.0)
            turn.drop_silence()

        assert not turn.due(1.0)
        assert turn.unseen_s < 2
        assert turn.held_s < 2

    def test_arrival_times_of_tiny_pieces_take_bounded_memory(self):
        turn = Turn("item", 0)
        for number in range(16_000):
            turn.append(np.zeros(1, np.int16), number / 16_000)

        assert len(turn._arrivals) < 25
        assert abs(turn.arrived(0.5) - 0.5) < 0.2
        assert turn.arrived(1.0) == turn.arrived(2.0) == 15_999 / 16_000

    def test_words_after_the_last_speech_were_not_said(self):
        turn = Turn("item", 0)
        turn.append(np.zeros(48_000, np.int16), 0.0)
        turn.voiced = 16_000
        turn.ended = True

        turn.answer(turn.window(), [Word(" Hello.", 0.2, 0.9), Word(" Thanks", 1.4, 2.0)])

        assert texts(turn.words.confirmed) == "Hello."

    def test_a_turn_whose_speech_is_confirmed_needs_no_further_window(self):
        turn = Turn("item", 0)
        turn.append(np.zeros(16_000, np.int16), 0.0)
        turn.voiced = 14_000
        for _ in range(2):
            turn.answer(turn.window(), [Word(" Hello.", 0.1, 0.8)])

        turn.append(np.zeros(8_000, np.int16), 0.0)
        turn.voiced = 15_000
        turn.ended = True

        assert turn.is_complete()
        assert not turn.due(0.5)


class TestOptions:
    def test_both_shapes_say_the_same(self):
        current = Options().updated({
            "type": "transcription",
            "audio": {"input": {
                "format": {"type": "audio/pcma"},
                "transcription": {"model": "m", "language": "en"},
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {"type": "server_vad", "threshold": 0.4},
            }},
            "include": ["item.input_audio_transcription.logprobs"],
        })  # fmt: skip
        earlier = Options().updated({
            "input_audio_format": "g711_alaw",
            "input_audio_transcription": {"model": "m", "language": "en"},
            "input_audio_noise_reduction": {"type": "near_field"},
            "turn_detection": {"type": "server_vad", "threshold": 0.4},
            "include": ["item.input_audio_transcription.logprobs"],
        })  # fmt: skip

        assert current == earlier
        assert Options().updated(current.shown()) == current
        assert Options().updated(earlier.shown_earlier()) == current
        assert current.turn_detection == TurnDetection(threshold=0.4)

    def test_a_whole_number_may_be_written_with_a_decimal_point(self):
        options = Options().updated({"audio": {"input": {"format": {"rate": 16000.0}}}})

        assert options.format == AudioFormat("audio/pcm", 16_000)
        assert type(options.format.rate) is int

    def test_an_update_leaves_the_rest(self):
        options = Options().updated({"audio": {"input": {"transcription": {"language": "de"}}}})

        options = options.updated({"audio": {"input": {"turn_detection": None}}})

        assert options.transcription["language"] == "de"
        assert options.turn_detection is None

    @pytest.mark.parametrize(
        ("given", "param"),
        [
            ({"format": {"type": "audio/pcm", "rate": 8000}}, "session.audio.input.format"),
            ({"turn_detection": {"type": "x"}}, "session.audio.input.turn_detection.type"),
            (
                {"turn_detection": {"threshold": 2}},
                "session.audio.input.turn_detection.threshold",
            ),
            ({"transcription": {"prompt": 5}}, "session.audio.input.transcription.prompt"),
            ({"transcription": {"keywords": "x"}}, "session.audio.input.transcription.keywords"),
            ({"noise_reduction": {"type": "x"}}, "session.audio.input.noise_reduction"),
        ],
    )
    def test_an_invalid_member_is_named(self, given, param):
        with pytest.raises(InvalidRequest) as refusal:
            Options().updated({"audio": {"input": given}})

        assert refusal.value.param == param


class TestSecrets:
    def test_a_client_secret_holds_its_grant_and_cannot_be_changed(self):
        grant = Grant("meetings", int(time.time()) + 60, Options().shown())
        token = sign(b"secret", grant)

        assert check(b"secret", token) == grant
        assert check(b"other", token) is None
        body, _, signature = token.partition(".")
        assert check(b"secret", f"{body[:-2]}AA.{signature}") is None

    def test_options_that_do_not_fit_a_header_are_refused(self):
        long = Options().updated({"audio": {"input": {"transcription": {"prompt": "x" * 9000}}}})

        with pytest.raises(InvalidRequest):
            sign(b"secret", Grant(None, 0, long.shown()))

    def test_a_machine_makes_its_secret_once_for_its_owner_alone(self, tmp_path):
        config = Config(run_dir=tmp_path)

        first = passes.shared_secret(config)

        assert passes.shared_secret(config) == first
        assert len(first) == 32
        assert (tmp_path / passes.FILE).stat().st_mode & 0o777 == 0o600
        assert [path.name for path in tmp_path.iterdir()] == [passes.FILE]

    def test_the_setting_is_the_secret_of_several_machines(self, tmp_path):
        one = passes.shared_secret(Config(run_dir=tmp_path / "a", live_secret="s"))

        assert passes.shared_secret(Config(run_dir=tmp_path / "b", live_secret="s")) == one
