// Sharing work out between threads. OpenMP, because torch brings a pool of it that can be shared.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#if defined(_OPENMP)
#include <omp.h>
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

// Memory without a value, aligned to a cache line.
template <class T> class Buffer {
  public:
    explicit Buffer(size_t n = 0) : size_(n), data_(static_cast<T*>(::operator new(n * sizeof(T), alignment))) {}
    T* get() const { return data_.get(); }
    T& operator[](size_t i) const { return data_.get()[i]; }
    size_t bytes() const { return size_ * sizeof(T); }

  private:
    static constexpr std::align_val_t alignment{64};
    struct Free {
        void operator()(T* p) const { ::operator delete(p, alignment); }
    };
    size_t size_;
    std::unique_ptr<T, Free> data_;
};

} // namespace gptoss
