// All kernels, and what launches them by name as cuLaunchKernel would. tests/kernels.rs compiles
// this into a library.
#include "../conv.cu"
#include "../conv_half.cu"
#include "../depthwise.cu"
#include "../features.cu"
#include "../picture.cu"
#include "../pool.cu"

#include <csetjmp>
#include <new>
#include <sys/mman.h>
#include <ucontext.h>
#include <utility>

thread_local EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace {
typedef void (*Call)(void** arguments);

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

template <class... A> constexpr size_t count_of(void (*)(A...)) { return sizeof...(A); }

struct Entry {
    const char* name;
    size_t arguments;
    Call call;
};

#define ENTRY(name)                                                                                \
    {#name, count_of(name), [](void** arguments) {                                                 \
         call(name, arguments, std::make_index_sequence<count_of(name)>());                        \
     }}

const Entry ENTRIES[] = {
    ENTRY(conv_f32_large_pointwise_vector),
    ENTRY(conv_f32_large_pointwise_scalar),
    ENTRY(conv_f32_large_standard_vector),
    ENTRY(conv_f32_large_standard_scalar),
    ENTRY(conv_f32_small_pointwise_vector),
    ENTRY(conv_f32_small_pointwise_scalar),
    ENTRY(conv_f32_small_standard_vector),
    ENTRY(conv_f32_small_standard_scalar),
    ENTRY(conv_f16_pointwise_vector),
    ENTRY(conv_f16_pointwise_scalar),
    ENTRY(conv_f16_standard_vector),
    ENTRY(conv_f16_standard_scalar),
    ENTRY(depthwise_f32_3_1),
    ENTRY(depthwise_f32_3_2),
    ENTRY(depthwise_f32_5_1),
    ENTRY(depthwise_f32_5_2),
    ENTRY(depthwise_f32_vector),
    ENTRY(depthwise_f32_scalar),
    ENTRY(depthwise_f16_3_1),
    ENTRY(depthwise_f16_3_2),
    ENTRY(depthwise_f16_5_1),
    ENTRY(depthwise_f16_5_2),
    ENTRY(depthwise_f16_vector),
    ENTRY(depthwise_f16_scalar),
    ENTRY(max_pool_f32_vector),
    ENTRY(max_pool_f32_scalar),
    ENTRY(max_pool_f16_vector),
    ENTRY(max_pool_f16_scalar),
    ENTRY(upsample_add_f32_vector),
    ENTRY(upsample_add_f32_scalar),
    ENTRY(upsample_add_f16_vector),
    ENTRY(upsample_add_f16_scalar),
    ENTRY(statistics_f32),
    ENTRY(statistics_f16),
    ENTRY(picture_crop),
    ENTRY(picture_affine),
    ENTRY(spectrum_level),
    ENTRY(spectrum_power),
    ENTRY(spectrum_log),
};

constexpr size_t STACK = 256 * 1024, PAGE = 4096, SHARED_SIZE = 48 * 1024;
constexpr unsigned MAX_THREADS = 1024;

struct Fibre {
    ucontext_t start;
    jmp_buf at;
    bool started, waits, done;
};

// One launch at a time in each thread of the process.
struct Machine {
    Fibre fibres[MAX_THREADS];
    char* stacks;
    char* shared_end;
    jmp_buf scheduler;
    jmp_buf failure;
    const char* error;
    Fibre* current;
    Call call;
    void** arguments;
};

thread_local Machine* machine = nullptr;

// A fibre's whole life: one thread of each block after the other.
void life() {
    for (;;) {
        machine->call(machine->arguments);
        machine->current->done = true;
        if (_setjmp(machine->current->at) == 0) {
            _longjmp(machine->scheduler, 1);
        }
    }
}

void resume(Fibre& fibre) {
    machine->current = &fibre;
    if (_setjmp(machine->scheduler) == 0) {
        if (fibre.started) {
            _longjmp(fibre.at, 1);
        }
        fibre.started = true;
        setcontext(&fibre.start);
    }
}

bool prepare() {
    if (machine != nullptr) {
        return true;
    }
    Machine* made = new (std::nothrow) Machine();
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* stacks = mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE, kind, -1, 0);
    void* memory = mmap(nullptr, SHARED_SIZE + PAGE, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (made == nullptr || stacks == MAP_FAILED || memory == MAP_FAILED) {
        return false;
    }
    made->stacks = static_cast<char*>(stacks);
    made->shared_end = static_cast<char*>(memory) + SHARED_SIZE;
    mprotect(made->shared_end, PAGE, PROT_NONE);
    machine = made;
    return true;
}

// The i-th of n in one of several orders.
unsigned in_order(unsigned i, unsigned n, int order) {
    switch (order) {
    case 0: return i;
    case 1: return n - 1 - i;
    default: { // by steps that have no factor in common with n
        unsigned step = n / 2 + 1, a, b;
        for (;; ++step) {
            for (a = step, b = n; b != 0;) {
                const unsigned rest = a % b;
                a = b;
                b = rest;
            }
            if (a == 1) {
                break;
            }
        }
        return static_cast<unsigned>((static_cast<uint64_t>(i) * step + n / 3) % n);
    }
    }
}

EmulatedIndex unfold(unsigned index, EmulatedIndex size) {
    return {index % size.x, index / size.x % size.y, index / size.x / size.y};
}

void run_block(unsigned threads, int order) {
    memset(machine->shared_end - SHARED_SIZE, 0xff, SHARED_SIZE);
    for (unsigned t = 0; t < threads; ++t) {
        machine->fibres[t].done = false;
    }
    for (;;) {
        unsigned done = 0;
        for (unsigned i = 0; i < threads; ++i) {
            const unsigned t = in_order(i, threads, order);
            threadIdx = unfold(t, blockDim);
            resume(machine->fibres[t]);
            done += machine->fibres[t].done;
        }
        if (done == threads) {
            return;
        }
        if (done != 0) {
            emulate::fail("a barrier that not all threads reach");
        }
    }
}
} // namespace

namespace emulate {
void* shared(size_t size, size_t alignment) {
    if (size > SHARED_SIZE) {
        fail("more than 48 KiB of shared memory");
    }
    const uintptr_t from = reinterpret_cast<uintptr_t>(machine->shared_end) - size;
    return reinterpret_cast<void*>(from / alignment * alignment);
}

void barrier() {
    if (_setjmp(machine->current->at) == 0) {
        _longjmp(machine->scheduler, 1);
    }
}

void fail(const char* what) {
    machine->error = what;
    _longjmp(machine->failure, 1);
}
} // namespace emulate

// Null when all went well, else what went wrong. `grid` and `block` are x, y, z.
extern "C" const char* emulate_launch(const char* name, const unsigned* grid, const unsigned* block,
                                      void** arguments, size_t count, int order) {
    const Entry* entry = nullptr;
    for (const Entry& e : ENTRIES) {
        if (strcmp(e.name, name) == 0) {
            entry = &e;
        }
    }
    if (entry == nullptr) {
        return "no kernel of this name";
    }
    if (entry->arguments != count) {
        return "another number of arguments";
    }
    const uint64_t threads = static_cast<uint64_t>(block[0]) * block[1] * block[2];
    const uint64_t blocks = static_cast<uint64_t>(grid[0]) * grid[1] * grid[2];
    // The limits of the hardware.
    if (threads == 0 || threads > MAX_THREADS || block[2] > 64) {
        return "a block of this size cannot be launched";
    }
    if (blocks == 0 || grid[0] > 0x7fffffff || grid[1] > 65535 || grid[2] > 65535) {
        return "a grid of this size cannot be launched";
    }
    if (blocks > 0x7fffffff) {
        return "too much to emulate";
    }
    if (!prepare()) {
        return "out of memory";
    }
    machine->call = entry->call;
    machine->arguments = arguments;
    machine->error = nullptr;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (unsigned t = 0; t < threads; ++t) {
        Fibre& fibre = machine->fibres[t];
        fibre.started = false;
        getcontext(&fibre.start);
        fibre.start.uc_stack.ss_sp = machine->stacks + STACK * t;
        fibre.start.uc_stack.ss_size = STACK;
        fibre.start.uc_link = nullptr;
        makecontext(&fibre.start, life, 0);
    }
    if (_setjmp(machine->failure) != 0) {
        return machine->error;
    }
    for (uint64_t i = 0; i < blocks; ++i) {
        const unsigned b =
            in_order(static_cast<unsigned>(i), static_cast<unsigned>(blocks), order);
        blockIdx = unfold(b, gridDim);
        run_block(static_cast<unsigned>(threads), order);
    }
    return nullptr;
}

// Bytes of each parameter struct, in a fixed order, to be compared with the Rust side's.
extern "C" void emulate_sizes(size_t sizes[8]) {
    const size_t all[8] = {sizeof(ConvParams), sizeof(DepthwiseParams), sizeof(PoolParams),
                           sizeof(SpectrumParams), sizeof(Surface), sizeof(Crop),
                           sizeof(Affine), sizeof(Target)};
    memcpy(sizes, all, sizeof all);
}
