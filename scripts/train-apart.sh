#!/usr/bin/env bash
# Trains in a folder unpacked from what `scripts/champion.sh --pack` wrote: on a machine with a GPU, Python and PyTorch,
# which needs no network, no DVC and no git (docs/recipes.md). What comes of it goes back by `--trained`.
set -euo pipefail

[[ $# == [12] && $1 != -* ]] || {
  echo "usage: scripts/train-apart.sh OUT [MINUTES]   what is trained, or a checkpoint after so long" >&2
  exit 2
}
out=$(realpath -m "$1") minutes=${2:-0}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}

[[ -d index ]] || python3 -m loupe.stages.patch_index
timeout "${minutes}m" python3 -m loupe.stages.train & child=$! # 0: for ever
trap 'kill "$child" 2> /dev/null' INT TERM HUP
code=0
wait "$child" || code=$?
while kill -0 "$child" 2> /dev/null; do sleep 0.2; done # it writes its checkpoint
[[ -d runs ]] || exit "$code" # it has not begun
mkdir -p "$out"
rm -f "$out"/trained.tar.*
found=(runs)
[[ ! -d models ]] || found+=(models metrics/train/curves.csv)
tar -c "${found[@]}" | split -b 15M - "$out/trained.tar." # in parts, for what carries them may limit a file's size
[[ -d models ]] || echo "$out: a checkpoint; the same command goes on here, --trained and --pack elsewhere" >&2
exit "$code"
