// Sharing work out between threads. OpenMP, because torch brings a pool of it that can be shared.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gptoss {

// f(item, thread) for every item, `grain` neighbouring items at a time, as threads become free.
template <class Function> void parallel_for(int threads, int64_t items, int64_t grain, const Function& f) {
#if defined(_OPENMP)
    if (threads > 1 && items > grain) {
#pragma omp parallel num_threads(threads)
        {
            const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, grain)
            for (int64_t i = 0; i < items; i++) f(i, thread);
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
