#!/bin/bash
# The small generative guard and the guard's latency on a GPU machine that nothing can be fetched to: one call each.
# The machine has Python with torch and transformers; vLLM and deepspeed come as one archive (the bundle).
#
#   here    gpu.sh prepare [RECIPE]        -> build/gpu/bundle.tar.xz, extra.tar.xz, rows.tar.xz: take the folder along
#   there   gpu.sh train OUT               call 1: language modelling, traces, snap and reason figures
#           gpu.sh grpo  OUT               call 2: GRPO from call 1's checkpoint, or on a new machine from its pieces
#                                          (put model.tar.xz.* into build/gpu), figures again
#           gpu.sh bench OUT               guard latency, a 7B shape, against the naive loop
#           gpu.sh pace  OUT [SHAPE]       tokens/s, MFU and shares of a larger shape with random weights (1.5b)
#   here    gpu.sh dry   OUT               prepare, train, grpo with tiny shapes on the CPU, end to end
#
# MINUTES (9) is the time of one call. What comes back lies in OUT: at most 8 files of at most 15 MB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
DO=${1:?prepare, train, grpo, bench, pace or dry}
FROM=${FROM:-build/gpu} SITE=${SITE:-/tmp/site} PYTHON=${PYTHON:-python3} MINUTES=${MINUTES:-9}
RECIPE=${RECIPE:-trainer/recipes/small-guard-gpu.toml} SET=(${SET:-})
WORK=${WORK:-/tmp/run}

site() {    # the bundle, once a machine
    if compgen -G "$FROM/bundle.tar.xz*" > /dev/null && [ ! -d "$SITE" ]; then
        rm -rf "$SITE.part"; mkdir -p "$SITE.part"          # a call that is cut off leaves no half of a bundle behind
        for name in bundle extra; do        # whole, or cut by `split -d` into NAME.00, NAME.01 for smaller transfers
            cat "$FROM/$name".tar.xz* | $PYTHON -c \
                'import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall(sys.argv[1])' "$SITE.part"
        done
        mv "$SITE.part" "$SITE"
    fi
    export PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 PYTHONUNBUFFERED=1
    export VLLM_USE_FLASHINFER_SAMPLER=0 VLLM_USE_DEEP_GEMM=0 VLLM_LOGGING_LEVEL=WARNING TOKENIZERS_PARALLELISM=true
    # without vLLM the rollouts go through transformers: slower, the same numbers
    local why
    if why=$($PYTHON -c 'import vllm' 2>&1); then
        echo "rollouts: vllm, unless the recipe or SET says otherwise"
    else
        echo "rollouts: transformers; vllm cannot be imported: $(tail -n 1 <<< "$why")"
        SET+=(--set engine.rollout=transformers)
    fi
}

once() {    # stages, files
    local stages=$1 out=$2; shift 2
    timeout "$((MINUTES * 60 + 45))" $PYTHON -m trainer.oneshot train "$RECIPE" --to "$out" --from "$@" \
        --stages "$stages" --minutes "$MINUTES" --set out="$WORK" --piece "${PIECE:-15}" "${SET[@]}"
}

case $DO in
prepare)
    mkdir -p build/gpu/extra
    STACK=$(realpath "${STACK:-../shared/stack}")
    PYTHONPATH=$PWD/trainer/recipes/gpu bash "$STACK"/make_*_bundle.sh "$PWD/build/bundle"
    cp build/bundle/*.tar.xz build/gpu/bundle.tar.xz
    # what benchmarks.guard_latency imports beyond the image and the bundle
    $PYTHON -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d build/gpu/extra orjson
    (cd build/gpu/extra && for w in *.whl; do $PYTHON -m zipfile -e "$w" site; done && tar cJf ../extra.tar.xz -C site .)
    rm -r build/gpu/extra
    $PYTHON -m trainer.oneshot pack "${2:-$RECIPE}" --to build/gpu/rows.tar.xz --set out=build/small-guard "${SET[@]}"
    ls -l build/gpu ;;
train)
    OUT=${2:?where the results go}; site
    once sft,eval "$OUT" "$FROM/rows.tar.xz" ;;
grpo)
    OUT=${2:?where the results go}; site
    files=("$FROM/rows.tar.xz")
    [ -d "$WORK/sft-model" ] || files+=("$FROM"/model.tar.xz.*)
    once grpo,eval "$OUT" "${files[@]}" ;;
bench)
    OUT=${2:?where the results go}; mkdir -p "$OUT"; site
    timeout "$((MINUTES * 60 + 45))" $PYTHON -m benchmarks.guard_latency --gpu --json "$OUT/guard_latency.json" ;;
pace)
    OUT=${2:?where the results go}; site; SHAPE=${3:-1.5b} WORK=$WORK-$SHAPE
    SET+=(--set model.shape="$SHAPE" --set model.checkpointing=true --set grpo.share_prefix=false --set sft.corpus=0
          --set sft.micro=32 --set grpo.micro=16 --set grpo.steps=10 --set engine.save_every=100000 --set engine.keep=1
          --set grpo.kl=1e-6)
    # random weights: only the clock matters, so no weights come back; a KL term so that every group is computed, whatever
    # its rewards (its reference costs a forward pass more and the weights' memory once more)
    PIECE=0 once sft,grpo "$OUT" "$FROM/rows.tar.xz" ;;
dry)
    OUT=${2:?where the results go}
    export FROM=$OUT/from SITE=$OUT/site WORK=$OUT/work MINUTES=${MINUTES}
    TINY="--set engine.rollout=transformers --set model.shape=nano --set model.vocab=1024 --set model.dtype=float32
          --set sft.batch=8 --set sft.micro=8 --set sft.longest=1024 --set sft.corpus=0.2 --set sft.epochs=0.5
          --set grpo.group=4 --set grpo.prompts=4 --set grpo.micro=4 --set grpo.steps=3 --set grpo.longest_prompt=1024
          --set grpo.longest_answer=24 --set eval.limit=8 --set engine.threads=1"
    export RECIPE=trainer/recipes/tiny.toml SET="$TINY"
    $PYTHON -m trainer.oneshot pack $RECIPE --to "$FROM/rows.tar.xz" --set out="$OUT/here" $SET \
        --set 'eval.files=["trainer/recipes/tiny.jsonl"]'
    SET="$SET --set eval.files=[\"elsewhere/tiny.jsonl\"]" bash "$0" train "$OUT/one"
    rm -rf "$WORK"; cp "$OUT"/one/model.tar.xz.* "$FROM"      # a new machine for the second call
    SET="$SET --set eval.files=[\"elsewhere/tiny.jsonl\"]" bash "$0" grpo "$OUT/two"
    ls -l "$OUT/one" "$OUT/two" ;;
*) sed -n 2,16p "${BASH_SOURCE[0]}"; exit 2 ;;
esac
