// Distribution of work to threads. OpenMP, because torch loads it anyway and its pool of threads can be shared.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace gptoss {

// The items [begin, end) that one thread has left, in one word, so that any thread can take from either end atomically.
class alignas(64) Share {
  public:
    void set(int64_t begin, int64_t end) { left_.store(pack(begin, end), std::memory_order_relaxed); }
    // Takes up to `grain` items from the front, or the back; false if none are left.
    bool take(int64_t grain, bool front, int64_t& begin, int64_t& end) {
        uint64_t left = left_.load(std::memory_order_relaxed);
        for (;;) {
            const int64_t first = int64_t(left >> 32), last = int64_t(left & 0xffffffffu);
            if (first >= last) return false;
            const int64_t n = last - first < grain ? last - first : grain;
            begin = front ? first : last - n;
            end = begin + n;
            const uint64_t rest = front ? pack(end, last) : pack(first, begin);
            if (left_.compare_exchange_weak(left, rest, std::memory_order_relaxed)) return true;
        }
    }

  private:
    static uint64_t pack(int64_t begin, int64_t end) { return uint64_t(begin) << 32 | uint64_t(end); }
    std::atomic<uint64_t> left_{0};
};

// Calls f(item, thread) once for every item in [0, items), items < 2^32, with thread in [0, threads).
//
// Each thread goes through a range of its own from the front, so that what it prefetches is what it reads next. A
// thread that has finished takes `grain` items at a time from the back of other threads' ranges. The number of threads
// is given to OpenMP explicitly: its own default differs between Python threads. If OpenMP provides fewer, those do all
// the work. Up to `grain` items run on the calling thread alone.
template <class Function>
void parallel_for([[maybe_unused]] int threads, int64_t items, [[maybe_unused]] int64_t grain, const Function& f) {
#if defined(_OPENMP)
    if (threads > 1 && items > grain) {
        std::vector<Share> shares(threads);
        for (int t = 0; t < threads; t++) shares[t].set(items * t / threads, items * (t + 1) / threads);
#pragma omp parallel num_threads(threads)
        {
            const int thread = omp_get_thread_num();
            int64_t begin, end;
            for (int other = 0; other < threads; other++)
                while (shares[(thread + other) % threads].take(grain, other == 0, begin, end))
                    for (int64_t i = begin; i < end; i++) f(i, thread);
        }
        return;
    }
#endif
    for (int64_t i = 0; i < items; i++) f(i, 0);
}

} // namespace gptoss
