#!/usr/bin/env bash
# Collects, as wheels, what benchmarks/gpu.py needs on a GPU machine without network that has Python 3.12, torch 2.11,
# lightning, numba, h5py, scipy, scikit-learn, xarray and what these need. Versions are those of constraints.txt.
#
#     bash benchmarks/gpu_wheels.sh .whl       # here, where pip works
#     python -m pip install --no-index --no-deps --target SITE .whl/*.whl && PYTHONPATH=SITE python benchmarks/gpu.py
set -euo pipefail
folder=$(realpath -m "${1:-.whl}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

built=(docrep antlr4-python3-runtime) # come as source only
needed=(
    absl-py anndata annotated-types array-api-compat donfig google-crc32c hydra-core lazy-loader legacy-api-wrap
    markdown-it-py mdurl ml_collections mudata natsort numcodecs omegaconf pandas pydantic pydantic_core Pygments
    pynndescent pyro-api pyro-ppl pytz rich scanpy scikit-misc scverse-misc scvi-tools session-info2 sparse
    typing-inspection tzdata umap-learn zarr
)

# A name with its pinned version, whichever of - and _ it is written with.
pinned() {
    for name in "$@"; do
        grep -iE "^${name//[-_]/[-_]}==" constraints.txt
    done
}

platforms=()
for glibc in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${glibc}_x86_64")
done
mapfile -t sources < <(pinned "${built[@]}")
mapfile -t wheels < <(pinned "${needed[@]}")
mkdir -p "$folder"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "${sources[@]}"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]}" --dest "$folder" "${wheels[@]}"
size=$(du -sm "$folder" | cut -f1)
echo "$(find "$folder" -name '*.whl' | wc -l) wheels, $size MiB"
[ "$size" -le 45 ] || { echo "more than 45 MiB" >&2; exit 1; }
