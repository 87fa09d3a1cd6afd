// Sharing work out between threads. OpenMP, because torch brings a pool of it that can be shared.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace gptoss {

// What one thread has left to do: items [begin, end), in one word, so that both ends can be taken from at any time.
class alignas(64) Share {
  public:
    void set(int64_t begin, int64_t end) { left_.store(pack(begin, end), std::memory_order_relaxed); }
    // Up to `grain` items of the front, or of the back; false where there are none.
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

// f(item, thread) for every item; there are fewer than 2^32.
//
// Each thread goes through a range of its own from its front, so that what it asks of memory ahead of time is what it
// comes to next; a thread that is done takes from the back of the others', `grain` items at a time.
template <class Function> void parallel_for(int threads, int64_t items, int64_t grain, const Function& f) {
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
