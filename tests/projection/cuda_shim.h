// Put in front of march.cu, this lets a C++ compiler build it: one thread after the other, on the host.
#include <cmath>
#include <cstring>

#define __global__
#define __device__
#define __launch_bounds__(threads)

struct Index {
    unsigned int x, y;
};
static thread_local Index threadIdx, blockIdx;

template <class T> static inline T __ldg(const T *at) { return *at; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// Runs every thread of a grid. Kernels have no barriers, so their order does not matter; `backwards` tests that.
extern "C" void launch(void (*kernel)(const void *), const unsigned int *grid, const unsigned int *block,
                       const void *params, int backwards) {
    const unsigned long long per_block = (unsigned long long)block[0] * block[1];
    const unsigned long long threads = per_block * grid[0] * grid[1];
    for (unsigned long long n = 0; n < threads; ++n) {
        const unsigned long long at = backwards ? threads - 1 - n : n, in_block = at % per_block, of = at / per_block;
        threadIdx = {(unsigned int)(in_block % block[0]), (unsigned int)(in_block / block[0])};
        blockIdx = {(unsigned int)(of % grid[0]), (unsigned int)(of / grid[0])};
        kernel(params);
    }
}
