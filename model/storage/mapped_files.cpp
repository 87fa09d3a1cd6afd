// The Python module `_mapped_files`: survives the cutting of files that are mapped.
//
// Reading a page that the file no longer has raises SIGBUS, which ends the process. The handler here puts zeros in place
// of the rest of a watched file and records that it did; `gptoss.model.storage.mapping` turns the record into an error.
// A SIGBUS anywhere else goes to the handler that was there before.
#include <nanobind/nanobind.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#if !defined(_WIN32)
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace nb = nanobind;
using namespace nb::literals;

namespace {

constexpr int kSlots = 1024;  // a model has at most some tens of files

// What the handler reads; it may run at any instruction of any thread.
struct Slot {
    std::atomic<uintptr_t> begin{0}, end{0};
    std::atomic<bool> cut{false};
};
Slot slots[kSlots];
std::atomic<uint64_t> cuts{0};

#if !defined(_WIN32)
struct sigaction previous;
uintptr_t page_size;

bool replace_rest(uintptr_t address) {
    for (Slot& slot : slots) {
        const uintptr_t begin = slot.begin.load(), end = slot.end.load();
        if (address < begin || address >= end) continue;
        const uintptr_t page = address / page_size * page_size;
        // mmap is not on POSIX's list of async-signal-safe functions; on Linux and macOS it is a bare system call.
        void* mapped = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (mapped == MAP_FAILED) return false;
        slot.cut = true;
        cuts++;
        return true;
    }
    return false;
}

void on_bus_error(int number, siginfo_t* info, void* context) {
    if (replace_rest(reinterpret_cast<uintptr_t>(info->si_addr))) return;
    if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(number, info, context);
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(number);
    sigaction(number, &previous, nullptr);  // on return the access is repeated, and this time ends the process
}

void install() {
    static bool installed = false;
    if (installed) return;
    page_size = uintptr_t(sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    installed = sigaction(SIGBUS, &action, &previous) == 0;
}
#else
void install() {}
#endif

// Called with the interpreter lock held, so slots are taken by one thread at a time.
int watch(uintptr_t address, size_t nbytes) {
    install();
    for (int i = 0; i < kSlots; i++) {
        if (slots[i].begin.load()) continue;
        slots[i].cut = false;
        slots[i].end = address + nbytes;
        slots[i].begin = address;
        return i;
    }
    return -1;
}

void unwatch(int slot) {
    if (slot < 0 || slot >= kSlots) return;
    slots[slot].end = 0;
    slots[slot].begin = 0;
}

} // namespace

NB_MODULE(_mapped_files, m) {
    m.doc() = "Replaces the missing pages of mapped files by zeros; see gptoss.model.storage.mapping";
    m.def("watch", &watch, "address"_a, "nbytes"_a,
          "Watch mapped memory, whole pages; returns its slot, or -1 if too many files are watched.");
    m.def("unwatch", &unwatch, "slot"_a, "Stop watching, before the memory is unmapped.");
    m.def("is_cut", [](int slot) { return slot >= 0 && slot < kSlots && slots[slot].cut.load(); }, "slot"_a,
          "Whether pages of this memory were replaced.");
    m.def("cuts", [] { return cuts.load(); }, "How often pages have been replaced in this process.");
}
