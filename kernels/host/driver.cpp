// A CUDA driver without a GPU: device memory is host memory, and kernels are launched by
// emulate.cpp. With it the Rust side of the CUDA operations runs from loading weights to reading
// results (scripts/check-cuda). One library stands for libcuda, libcublas and libcurand, of
// which candle makes handles that the networks do not use.
//
// Every allocation starts at a multiple of 256 bytes, as on a GPU, is filled with NaN, is checked
// for writes around it when it is freed, and ends at most 255 bytes before a page that cannot be
// touched; freed memory cannot be touched either.
#include "emulate.cpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

namespace {
typedef int Result;
constexpr Result OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, LAUNCH_FAILED = 719;

struct Allocation {
    char* mapping;
    size_t mapped, bytes;
};

std::mutex mutex;
std::map<uintptr_t, Allocation> allocations;
size_t bytes_in_use = 0;
std::atomic<long> launches{0};

// What the environment says; nothing is -1.
long limit(const char* name) {
    const char* text = getenv(name);
    return text ? atol(text) : -1;
}

Result allocate(uint64_t* address, size_t bytes) {
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    // A device of this many bytes.
    static const long memory_bytes = limit("EMULATED_BYTES");
    {
        const std::lock_guard<std::mutex> lock(mutex);
        if (memory_bytes >= 0 && bytes_in_use + bytes > static_cast<size_t>(memory_bytes)) {
            return OUT_OF_MEMORY;
        }
        bytes_in_use += bytes;
    }
    const size_t room = (bytes + 255) / 256 * 256;
    const size_t mapped = (room + PAGE - 1) / PAGE * PAGE + PAGE;
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (memory == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    char* mapping = static_cast<char*>(memory);
    memset(mapping, 0xff, mapped - PAGE);
    mprotect(mapping + mapped - PAGE, PAGE, PROT_NONE);
    *address = reinterpret_cast<uintptr_t>(mapping + mapped - PAGE - room);
    const std::lock_guard<std::mutex> lock(mutex);
    allocations[*address] = {mapping, mapped, bytes};
    return OK;
}

Result release(uint64_t address) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = allocations.find(address);
    if (found == allocations.end()) {
        return INVALID_VALUE;
    }
    const Allocation a = found->second;
    const char* end = reinterpret_cast<const char*>(address) + a.bytes;
    const char* start = reinterpret_cast<const char*>(address);
    for (const char* p = a.mapping; p < a.mapping + a.mapped - PAGE; ++p) {
        if ((p < start || p >= end) && *p != static_cast<char>(0xff)) {
            fprintf(stderr, "emulated driver: %zu bytes of device memory written around\n", a.bytes);
            abort();
        }
    }
    munmap(a.mapping, a.mapped);
    bytes_in_use -= a.bytes;
    allocations.erase(found);
    return OK;
}

// Those of candle's own kernels that loading the networks needs.
bool launch_candle(const std::string& name, void** a) {
    const auto size = [&](int i) { return *static_cast<size_t*>(a[i]); };
    const auto count = [&](int i) { return *static_cast<uint32_t*>(a[i]); };
    const auto values = [&](int i) { return *static_cast<float**>(a[i]); };
    // Offset of the i-th value of a strided tensor.
    const auto strided = [](size_t i, size_t dims, const size_t* shape, const size_t* strides) {
        size_t at = 0;
        for (size_t d = dims; d-- > 0; i /= shape[d]) {
            at += i % shape[d] * strides[d];
        }
        return at;
    };
    if (name == "copy2d_f32") {
        for (size_t i = 0; i < count(2); ++i) {
            memcpy(values(1) + i * count(5), values(0) + i * count(4), count(3) * sizeof(float));
        }
    } else if (name == "ucopy_f32") {
        const size_t* info = *static_cast<const size_t**>(a[2]);
        for (size_t i = 0; i < size(0); ++i) {
            const size_t at = info ? strided(i, size(1), info, info + size(1)) : i;
            values(4)[i] = values(3)[at];
        }
    } else if (name == "badd_f32") {
        const size_t* info = *static_cast<const size_t**>(a[2]);
        for (size_t i = 0; i < size(0); ++i) {
            const size_t left = info ? strided(i, size(1), info, info + size(1)) : i;
            const size_t right = info ? strided(i, size(1), info, info + 2 * size(1)) : i;
            values(5)[i] = values(3)[left] + values(4)[right];
        }
    } else {
        return false;
    }
    return true;
}

bool is_candles(const std::string& name) {
    return name == "copy2d_f32" || name == "ucopy_f32" || name == "badd_f32";
}

char handle; // what all handles point at
} // namespace

extern "C" {
Result cuInit(unsigned) { return OK; }
Result cuDriverGetVersion(int* version) {
    *version = 13000;
    return OK;
}
Result cuDeviceGetCount(int* count) {
    *count = 1;
    return OK;
}
Result cuDeviceGet(int* device, int ordinal) {
    *device = 0;
    return ordinal == 0 ? OK : INVALID_VALUE;
}
Result cuDeviceGetName(char* name, int length, int) {
    snprintf(name, static_cast<size_t>(length), "emulated on the host");
    return OK;
}
Result cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = size_t(8) << 30;
    return OK;
}
Result cuDeviceGetAttribute(int* value, int attribute, int) {
    // Compute capability 9.0, memory pools; nothing else is asked for.
    *value = attribute == 75 ? 9 : attribute == 115 ? 1 : 0;
    return OK;
}
Result cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &handle;
    return OK;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxSetCurrent(void*) { return OK; }
Result cuCtxGetCurrent(void** context) {
    *context = &handle;
    return OK;
}
Result cuCtxSynchronize() { return OK; }
Result cuStreamCreate(void** stream, unsigned) {
    *stream = &handle;
    return OK;
}
Result cuStreamDestroy_v2(void*) { return OK; }
Result cuStreamSynchronize(void*) { return OK; }
Result cuStreamWaitEvent(void*, void*, unsigned) { return OK; }
Result cuStreamIsCapturing(void*, int* status) {
    *status = 0;
    return OK;
}
Result cuEventCreate(void** event, unsigned) {
    *event = &handle;
    return OK;
}
Result cuEventDestroy_v2(void*) { return OK; }
Result cuEventRecord(void*, void*) { return OK; }
Result cuEventSynchronize(void*) { return OK; }
Result cuMemAllocAsync(uint64_t* address, size_t bytes, void*) { return allocate(address, bytes); }
Result cuMemAlloc_v2(uint64_t* address, size_t bytes) { return allocate(address, bytes); }
Result cuMemFreeAsync(uint64_t address, void*) { return release(address); }
Result cuMemFree_v2(uint64_t address) { return release(address); }
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    return OK;
}
Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return OK;
}
Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    return OK;
}
Result cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void*) {
    memset(reinterpret_cast<void*>(to), value, bytes);
    return OK;
}
// A module is its PTX, so that a kernel is only found where its source has it.
Result cuModuleLoadData(void** module, const void* image) {
    *module = new std::string(static_cast<const char*>(image));
    return OK;
}
Result cuModuleUnload(void* module) {
    delete static_cast<std::string*>(module);
    return OK;
}
// A function is its name.
Result cuModuleGetFunction(void** function, void* module, const char* name) {
    static std::map<std::string, std::string> names;
    const std::string& ptx = *static_cast<std::string*>(module);
    if (!is_candles(name) && ptx.find(std::string(".entry ") + name + "(") == std::string::npos) {
        return NOT_FOUND;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    *function = &names.emplace(name, name).first->second;
    return OK;
}
Result cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                      unsigned by, unsigned bz, unsigned shared, void*, void** arguments, void**) {
    const std::string& name = *static_cast<std::string*>(function);
    // A device that is lost after this many launches.
    static const long lost_after = limit("EMULATED_LAUNCHES");
    if (lost_after >= 0 && launches++ >= lost_after) {
        return LAUNCH_FAILED;
    }
    if (launch_candle(name, arguments)) {
        return OK;
    }
    size_t count = 0;
    for (const Entry& e : ENTRIES) {
        count = name == e.name ? e.arguments : count;
    }
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    const char* error = emulate_launch(name.c_str(), grid, block, arguments, count, 0);
    if (error != nullptr || shared != 0) {
        fprintf(stderr, "emulated driver: %s: %s\n", name.c_str(), error ? error : "shared memory");
        return LAUNCH_FAILED;
    }
    return OK;
}
Result cuGetErrorName(Result, const char** text) {
    *text = "an error of the emulated driver";
    return OK;
}
Result cuGetErrorString(Result, const char** text) {
    *text = "an error of the emulated driver";
    return OK;
}
Result cublasCreate_v2(void** made) {
    *made = &handle;
    return OK;
}
Result cublasSetStream_v2(void*, void*) { return OK; }
Result cublasDestroy_v2(void*) { return OK; }
Result curandCreateGenerator(void** made, int) {
    *made = &handle;
    return OK;
}
Result curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return OK; }
Result curandSetStream(void*, void*) { return OK; }
Result curandDestroyGenerator(void*) { return OK; }
}
