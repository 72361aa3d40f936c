#!/bin/bash
# What is to be run on a machine with a GPU, a call of at most ten minutes each; README.md beside it says what for.
#   bash results/benchmark-gpu/run.sh pack                                        where the data is, once
#   bash results/benchmark-gpu/run.sh carry PART    makes data/carry, all that a part needs, to be taken to the GPU
#   bash results/benchmark-gpu/run.sh systems | peers | steps | mini | paper | tests    there, from the top of that folder
# TINY=1 DEVICE=cpu rehearses a part on a processor. OUT is where its results go, PACKED where the packed data lies.
set -euo pipefail
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} TINY=${TINY:-}
HERE=results/benchmark-gpu WEIGHTS=dmxlib/pretrained
if [ "$TINY" ]; then OUT=${OUT:-data/rehearsal}; fi
OUT=${OUT:-$HERE} PACKED=${PACKED:-data/packed} RUNS=${RUNS:-data/runs}
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
if [ "$DEVICE" = cpu ]; then export ACCELERATE_USE_CPU=true CUDA_VISIBLE_DEVICES=; fi
mkdir -p "$OUT" "$RUNS"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}  # programs that a part starts find the code too
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
if [ -d wheels ]; then  # as `carry` puts them beside the rest
    site=$(mktemp -d)
    $PYTHON -m pip install -q --no-index --no-deps --target "$site" wheels/*.whl
    export PYTHONPATH=$PYTHONPATH:$site
fi

clock() {  # seconds; a rehearsal ends by its number of steps
    if [ "$TINY" ]; then echo 0; else echo "$1"; fi
}

pack() {  # at most 40 MB: 24 kHz mono for the mini size, 48 kHz stereo for the paper's
    $PYTHON -m dmxlib.data pack data/mir-1k data/everything-is-free "$PACKED/mono" --size 24MB --mono
    $PYTHON -m dmxlib.data pack data/everything-is-free "$PACKED/stereo" --size 16MB
}

carry() {  # a part; its code, weights, data and wheels under 64 MB
    local folder=data/carry code=(dmxlib "$HERE" ':!*.safetensors') weights=("$WEIGHTS/ldm-dmx-mini") data=()
    case $1 in
        peers) weights+=("$WEIGHTS/encodec-mini") ;;  # MSG-LD's codec
        mini) data=("$PACKED/mono") ;;
        paper) weights=() data=("$PACKED/stereo") ;;
        tests) code=(. ':!*.safetensors' ':!results/*.png' ':!results/*.ipynb' ':!results/*.jsonl' ':!results/*s.csv') weights=("$WEIGHTS" ":!$WEIGHTS/instglow-mini" tests/saved) ;;
    esac
    if [ -e $HERE/benchmark.csv ]; then data+=($HERE/benchmark.csv); fi  # for the next rows to join
    rm -rf "$folder"
    mkdir -p "$folder"
    git ls-files -z "${code[@]}" | xargs -0 cp --parents -t "$folder"
    if [ ${#weights[@]} -gt 0 ]; then git ls-files -z "${weights[@]}" | xargs -0 cp --parents -t "$folder"; fi
    if [ ${#data[@]} -gt 0 ]; then cp -r --parents "${data[@]}" "$folder"; fi
    if [ -d data/wheels ]; then cp -r data/wheels "$folder/wheels"; fi
    du -sb "$folder"
}

benchmark() {  # kinds of cases; their rows join those that are there
    if [ ! -e "$OUT/benchmark.csv" ] && [ -e $HERE/benchmark.csv ]; then cp $HERE/benchmark.csv "$OUT"; fi
    if [ "$TINY" ]; then set -- "$@" --quick; fi
    timeout $(clock 570) $PYTHON -m dmxlib.studies.benchmark --device "$DEVICE" --output_dir "$OUT" --repeats 3 --only "$@"
}

train() {  # seconds, then flags: trains until the clock, which has it write a checkpoint, and makes a model of that
    local seconds=$1 run=$2; shift 2
    rm -rf "$run" "$run.memory"
    watch "$run" & local watcher=$!
    timeout -s TERM $(clock "$seconds") $PYTHON -m dmxlib.train "$@" --output_dir "$run" || [ $? -ge 124 ]
    kill $watcher 2>/dev/null || true
    local last; last=$(ls -d "$run"/checkpoint-* | sed 's/.*-//' | sort -n | tail -1)
    $PYTHON -m dmxlib.train --config "$run/config.yaml" --resume_from_checkpoint latest --max_train_steps "$last"
    cp "$run/log.jsonl" "$OUT/$(basename "$run").jsonl"
    rates "$run"
}

watch() {  # the GPU's memory in MiB, every two seconds
    while [ "$DEVICE" != cpu ]; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits >> "$1.memory"; sleep 2; done
}

rates() {  # of a run: steps and excerpts a second, losses, memory, and the days of a million steps
    $PYTHON - "$1" <<'P'
import json, sys
from pathlib import Path
import yaml
run = Path(sys.argv[1])
config = yaml.safe_load((run / "config.yaml").read_text())
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
log = [record for record in log if "loss" in record]
late, third = log[len(log) // 3 :], max(1, len(log) // 3)
rate = (late[-1]["step"] - late[0]["step"]) / max(1e-3, late[-1]["time"] - late[0]["time"])
batch = config["train_batch_size"] * config["gradient_accumulation_steps"]
first, last = (sum(record["loss"] for record in part) / third for part in (log[:third], log[-third:]))
print(f"{run.name}: {rate:.2f} steps and {batch * rate:.1f} excerpts a second, loss {first:.3f} -> {last:.3f}")
memory = Path(f"{run}.memory")
if memory.exists():
    print(f"{max(map(int, memory.read_text().split()))} MiB of the GPU")
print(f"of batch 32, on one GPU and on four: {32 / batch / rate / 0.0864:.1f} and {8 / batch / rate / 0.0864:.1f} days a million steps")
P
}

mini() {  # the system that ships goes on learning for eight minutes; its weights as fp16, a tar in files of 15 MB
    local flags=(--mixed_precision bf16 --train_batch_size 32 --logging_steps 50)
    if [ "$TINY" ]; then flags=(--mixed_precision no --train_batch_size 1 --validation_pairs 1 --max_train_steps 2 --logging_steps 1); fi
    train 480 "$RUNS/gpu_mini" --config dmxlib/configs/mini_stage1_singers.yaml --pretrained_model_name_or_path ldm-dmx-mini \
        --latent_cache none --data_root "[$PACKED/mono/mir-1k, $PACKED/mono/everything-is-free]" --data_on_device yes \
        --augmentations "[stem_remix, layer, one_band, polarity, channel_flip, pitch_shift, tone, levels]" \
        --max_train_steps 100000 --lr_decay 1 --validation_steps 500 --checkpointing_steps 500 "${flags[@]}"
    $PYTHON - "$RUNS/gpu_mini/model" "$RUNS/half/gpu_mini" <<'P'
import sys, torch
from dmxlib import VocalSeparationPipeline
VocalSeparationPipeline.from_pretrained(sys.argv[1]).to(torch.float16).save_pretrained(sys.argv[2])
P
    tar c -C "$RUNS/half" gpu_mini | split -b 15MB - "$OUT/gpu_mini.tar."
}

paper() {  # two minutes of each stage at the paper's size; EnCodec's architecture with random weights
    local codec=(--sampling_rate 48000 --channels 2 --n_residual_layers 1 --ratios "[8, 5, 4, 2]") size=() stages=() seconds=140
    local data=(--data_root "$PACKED/stereo/everything-is-free" --validation_pairs 1)
    local fast=(--data_on_device yes --logging_steps 10 --lr_warmup_steps 100 --validation_steps 100000 --checkpointing_steps 100000)
    if [ "$TINY" ]; then
        codec=(--sampling_rate 48000 --channels 2 --dimension 16 --n_filters 4 --ratios "[5, 4, 4, 4]" --calibration_excerpts 2 --chunk_frames 64)
        size=(--chunk_frames 64 --level_channels "[8, 8, 8, 8, 8, 8]" --fourier_channels 8 --time_channels 8)
        stages=(--mixed_precision no --train_batch_size 1 --max_train_steps 2 --num_inference_steps 1 --logging_steps 1)
    fi
    rm -rf "$RUNS/gpu_codec"
    $PYTHON -m dmxlib.train_codec --config dmxlib/configs/paper_codec.yaml --init none "${data[@]:0:2}" --output_dir "$RUNS/gpu_codec" \
        --calibration_excerpts 16 --validation_excerpts 2 "${codec[@]}"
    train $seconds "$RUNS/gpu_paper1" --config dmxlib/configs/paper_stage1.yaml --codec "$RUNS/gpu_codec/model" "${data[@]}" "${fast[@]}" "${size[@]}" "${stages[@]}"
    train $seconds "$RUNS/gpu_paper2" --config dmxlib/configs/paper_stage2.yaml --pretrained_model_name_or_path "$RUNS/gpu_paper1/model" \
        "${data[@]}" "${fast[@]}" "${stages[@]}"
}

tests() {  # what compares both devices, then all others but those of a library or of weights that are not there
    local failed=0 ABSENT="not links_lead and not listed_with_the_figures and not musdb and not instglow-mini and not trained[instglow"
    $PYTHON -m pytest -m gpu tests/test_gpu.py || failed=$?
    mapfile -t lacking < <($PYTHON -m pytest --collect-only | sed -n 's/^ERROR \([^ ]*\).*/--ignore=\1/p')
    echo "not run: ${lacking[*]}"
    if [ ! "$TINY" ]; then
        timeout -s INT 400 $PYTHON -m pytest -m "not gpu" -k "$ABSENT" "${lacking[@]}" || failed=$?
    fi
    return $failed
}

case ${1:-} in
    pack | mini | paper | tests) "$1" ;;
    carry) carry "${2:?of which part}" ;;
    systems) benchmark separation unet ;;
    peers) benchmark baseline song ;;
    steps) benchmark training ;;
    *) sed -n 2,6p "$0"; exit 1 ;;
esac
