// Sharing work out between threads. OpenMP, because torch brings a pool of it that can be shared.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
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

// Memory without a value, aligned to a cache line. Large memory asks for large pages: fewer faults as it is filled,
// fewer misses as it is read.
template <class T> class Buffer {
  public:
    explicit Buffer(size_t n = 0) : size_(n), data_(allocate(n * sizeof(T)), Free{alignment(n * sizeof(T))}) {}
    T* get() const { return data_.get(); }
    T& operator[](size_t i) const { return data_.get()[i]; }
    size_t bytes() const { return size_ * sizeof(T); }

  private:
    static constexpr size_t large_page = size_t(1) << 21;
    static std::align_val_t alignment(size_t bytes) { return std::align_val_t(bytes < 2 * large_page ? 64 : large_page); }
    static T* allocate(size_t bytes) {
        void* p = ::operator new(bytes, alignment(bytes));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (bytes >= 2 * large_page) madvise(p, bytes, MADV_HUGEPAGE); // a wish: it may be refused
#endif
        return static_cast<T*>(p);
    }
    struct Free {
        std::align_val_t alignment{64};
        void operator()(T* p) const { ::operator delete(p, alignment); }
    };
    size_t size_;
    std::unique_ptr<T, Free> data_;
};

} // namespace gptoss
