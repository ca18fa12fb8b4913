"""Features are faster-whisper's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from app.engine.features import LogMel
from tests.support.recordings import long_recording


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [1, 160, 401, 16_000, 20_479, 111_111, 480_000, 960_000])
def test_features_are_faster_whispers(n_mels, samples):
    waveform = long_recording(60).samples[:samples]

    found = LogMel(feature_size=n_mels)(waveform)

    expected = FeatureExtractor(feature_size=n_mels)(waveform)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_silence_has_faster_whispers_features():
    silence = np.zeros(16_000, np.float32)

    np.testing.assert_array_equal(LogMel()(silence), FeatureExtractor()(silence))
