// Memory for temporaries of one operation.
#pragma once
#include <cstddef>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace gptoss {

// An owned array of n uninitialised elements, aligned to a cache line. Of 4 MB or more it asks for large pages, which
// cost fewer page faults when it is filled and fewer TLB misses when it is read.
template <class T> class Buffer {
  public:
    explicit Buffer(size_t n = 0) : size_(n), data_(allocate(n * sizeof(T)), Free{alignment(n * sizeof(T))}) {}
    T* get() const { return data_.get(); }
    T& operator[](size_t i) const { return data_.get()[i]; }
    size_t bytes() const { return size_ * sizeof(T); }

  private:
    static constexpr size_t large_page = size_t(1) << 21;
    static std::align_val_t alignment(size_t bytes) {
        return std::align_val_t(bytes < 2 * large_page ? 64 : large_page);
    }
    static T* allocate(size_t bytes) {
        void* p = ::operator new(bytes, alignment(bytes));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (bytes >= 2 * large_page) madvise(p, bytes, MADV_HUGEPAGE); // advice only: failure is harmless
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

// Lets the C library keep up to 256 MB of freed memory, in the whole process. By default it returns large blocks to the
// kernel, which then clears the same pages again for each operation of a prefill: a tenth of its time.
inline void keep_freed_memory() {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 32 << 20); // the largest value that it accepts
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

} // namespace gptoss
