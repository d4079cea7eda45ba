#!/usr/bin/env bash
# Searches for inputs that break a promise: libFuzzer, guided by coverage, under AddressSanitizer. The C code (libjpeg and
# our shim) is compiled with its hardening options and AddressSanitizer, UndefinedBehaviorSanitizer and coverage.
#
#   fuzz/run.sh TARGET|all [--runs N] [--seconds N] [--minimise]
#
# Needs clang and a C++ compiler beside stable Rust. What is found lies in target/fuzz/TARGET/: `found` (the growing
# corpus), `crash-*`, `timeout-*`, `oom-*` (findings), `log`. A line per run is added to target/fuzz/results.tsv.
# --minimise afterwards replaces the committed corpus by the smallest inputs that keep most of the coverage.
# FUZZ_SIMD=1 keeps libjpeg's assembler code, as in a release; without it all of libjpeg is C and under the sanitizers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '5s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
target=${1:-}
[ -n "$target" ] || usage
shift
runs="" seconds="" minimise=""
while [ $# -gt 0 ]; do
    case $1 in
        --runs) runs=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --minimise) minimise=yes; shift ;;
        *) usage ;;
    esac
done

# How long a build may take is not to depend on the search: one program for all targets.
machine=$(rustc -vV | sed -n 's/^host: //p')
work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
build=$work/build${FUZZ_SIMD:+-simd}
mkdir -p "$work"

hardening=(-fstack-protector-strong -D_FORTIFY_SOURCE=2)
sanitizers=(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp)
variable=${machine//-/_}
export "CC_$variable=clang" "CFLAGS_$variable=-O1 -g1 -fno-omit-frame-pointer ${hardening[*]} ${sanitizers[*]}"
# libFuzzer itself must not be instrumented.
export "CXXFLAGS_$variable=-O2"
# AddressSanitizer is not offered by stable Rust without this; the compiler is the stable one all the same.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Copt-level=3 -Cdebuginfo=line-tables-only -Cdebug-assertions=on -Coverflow-checks=on \
-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
path=$PATH
if [ -z "${FUZZ_SIMD:-}" ]; then
    # A nasm that fails: libjpeg then builds without assembler code, which no sanitizer can look into.
    mkdir -p "$work/without-nasm"
    printf '#!/bin/sh\necho "NASM version 0."\n' > "$work/without-nasm/nasm"
    chmod +x "$work/without-nasm/nasm"
    path=$work/without-nasm:$PATH
fi
PATH=$path cargo build --quiet -p dinov3-fuzz --features search --bins --target "$machine" --target-dir "$build"
programs=$build/$machine/debug

# Inputs of the checkpoint targets are files: in memory, if there is such a folder.
TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0:detect_stack_use_after_return=0
symbolizer=$(command -v llvm-symbolizer || true)
[ -z "$symbolizer" ] || export ASAN_SYMBOLIZER_PATH=$symbolizer

search() {
    local name=$1 longest=$2 folder=$work/$1
    mkdir -p "$folder/found" "$folder/seeds" "fuzz/corpus/$name"
    ASAN_OPTIONS= "$programs/seeds" "$name" "$folder/seeds"
    local limits=(-max_len="$longest" -timeout=1 -rss_limit_mb=1024 -malloc_limit_mb=64 -artifact_prefix="$folder/")
    local bounds=()
    [ -z "$runs" ] || bounds+=(-runs="$runs")
    [ -z "$seconds" ] || bounds+=(-max_total_time="$seconds")
    [ ${#bounds[@]} -gt 0 ] || bounds=(-runs=1000000)
    local status=0
    DINOV3_FUZZ_TARGET=$name "$programs/search" "${limits[@]}" "${bounds[@]}" -dict="$folder/seeds.words" \
        -use_value_profile=0 -print_final_stats=1 -reload=0 \
        "$folder/found" "fuzz/corpus/$name" "$folder/seeds" > "$folder/log" 2>&1 || status=$?
    local executions time coverage features finding=none
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/log")
    time=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$folder/log")
    coverage=$(grep -o 'cov: [0-9]*' "$folder/log" | tail -1 | cut -d' ' -f2 || true)
    features=$(grep -o 'ft: [0-9]*' "$folder/log" | tail -1 | cut -d' ' -f2 || true)
    [ "$status" = 0 ] || finding=$(sed -n 's/^SUMMARY: //p' "$folder/log" | tail -1)
    printf '%s\t%s\t%s s\t%s edges\t%s features\t%s\n' "$name" "${executions:-?}" "${time:-?}" "${coverage:-?}" "${features:-?}" \
        "${finding:-stopped with $status}" | tee -a "$work/results.tsv"
    if [ -n "$minimise" ]; then minimise_corpus "$name" "$longest"; fi
    return "$status"
}

# The smallest inputs first, as long as they add coverage, up to 20 KB a target and 8 KB a file.
minimise_corpus() {
    local name=$1 longest=$2 folder=$work/$1
    rm -rf "$folder/merged" && mkdir "$folder/merged"
    DINOV3_FUZZ_TARGET=$name "$programs/search" -merge=1 -max_len="$longest" -timeout=5 "$folder/merged" "$folder/seeds" \
        "$folder/found" "fuzz/corpus/$name" >> "$folder/log" 2>&1
    rm -rf "fuzz/corpus/$name" && mkdir -p "fuzz/corpus/$name"
    local total=0 file size
    while read -r size file; do
        [ $((total + size)) -le 20000 ] && [ "$size" -le 8192 ] || continue
        cp "$file" "fuzz/corpus/$name/$(basename "$file")"
        total=$((total + size))
    done < <(find "$folder/merged" -type f -size -8k -printf '%s %p\n' | sort -n)
}

failed=0
while read -r name longest; do
    [ "$target" = all ] || [ "$target" = "$name" ] || continue
    known=yes
    search "$name" "$longest" || failed=1
done < <(ASAN_OPTIONS= "$programs/seeds")
[ "${known:-}" = yes ] || { echo "$target is no target" >&2; exit 2; }
exit "$failed"
