#!/bin/sh
# Build and run cpu_kernels.cpp with the flags of CMakeLists.txt.
set -eu
cd "$(dirname "$0")/.."
cxx=${CXX:-g++}
out=build/cpu_kernels
kernels=model/kernels/cpu
mkdir -p "$out"
flags="-std=c++20 -O3 -Wno-maybe-uninitialized"
levels=""
case $(uname -m) in
x86_64)
    levels=-DGPTOSS_X86_LEVELS
    $cxx $flags -mavx2 -mfma -c $kernels/isa_avx2.cpp -o "$out/avx2.o"
    $cxx $flags -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi \
        -c $kernels/isa_avx512.cpp -o "$out/avx512.o"
    ;;
esac
$cxx $flags -c $kernels/isa_portable.cpp -o "$out/portable.o"
$cxx $flags $levels benchmarks/cpu_kernels.cpp $kernels/dispatch.cpp "$out"/*.o -o "$out/run"
exec "$out/run" "$@"
