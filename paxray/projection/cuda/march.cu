// The projector in CUDA C: one thread follows one ray, slab by slab, for the image and every class at once.
//
// Joseph's method as in reference.py: step along one axis of the volume (a), interpolate bilinearly in the two
// others (b, c), label of the nearest voxel. A ray's state is a run (atom, first step) in registers; classes are
// touched only where the atom changes. Each ray is owned by one thread and every reduction has a fixed order, so
// results do not depend on scheduling; there are no atomics.
//
// Compiled at run time for what is asked for. Macros, 0 or 1: IMAGE; CLASSES (presence bits, needed by all but
// SHARE); PATH; DEPTH; FACTS; SHARE; INCOMPLETE. MU_BITS: 32 (float per mm) or 16 (unsigned multiples of mu_unit).
// ATOM_BITS: 16 or 32. MATERIALS: how many; STORED: 0 (their voxels are float coefficients, volume after volume), 1 or
// 2 (16-bit integers, signed or not, whose coefficients stand in a table). BLOCK_X, BLOCK_Y, GROUP, LINE, ROWS_PER_BLOCK, LANES; PARAMS_BYTES, FACTS_BYTES check the
// structs below against their twins in kernels.py. The text uses no header, so that a C++ compiler with a few
// macros in front can build it too.

#define LABELLED (CLASSES || SHARE || INCOMPLETE)
#define STEPS (PATH || DEPTH || FACTS)
#define DEEP (DEPTH || FACTS)
#define BODY 1
#define PADDING 2
// Instead of an atom: outside the array; or not on the ray, before its source or behind its detector.
#define OUTSIDE -1
#define BEYOND -2

#if MU_BITS == 32
typedef float Mu;
#else
typedef unsigned short Mu;
#endif
#if ATOM_BITS == 16
typedef unsigned short Atom;
#else
typedef unsigned int Atom;
#endif
#if STORED == 0
typedef float Stored;
#elif STORED == 1
typedef short Stored;
#else
typedef unsigned short Stored;
#endif
typedef long long Int64;

// What a class's pixels add up to; empty: pixels 0, minima the largest integer, maxima -1.
struct Facts {
    Int64 pixels, column_min, column_max, row_min, row_max, column_sum, row_sum;
    double path_sum_mm, path_max_mm, entry_sum_mm, exit_sum_mm;
};

// A launch works on a tile: `rows` whole rows of the detector from `row0` on. Planes are (rows, columns) of the tile.
// Vectors are in index space with the stepping axis first: (a, b, c), b and c in the order of i, j, k.
struct Params {
    const Mu *mu;                    // voxels in the order that `stride` tells
    const Atom *atoms;
    const unsigned int *word_start;  // atom x feeds the bits word_bits[e] of word word_of[e],
    const unsigned int *word_of;     //   e from word_start[x] up to word_start[x + 1]
    const unsigned int *word_bits;
    const unsigned char *flags;      // per atom: BODY, PADDING
    const signed char *axes;         // plane: stepping axis of each ray, or null: signed_axis for all
    float *image;                    // plane, zero before
    unsigned int *bits;              // one plane per 32 channels, zero before
    int *steps;                      // one plane per channel; as are the next three. Set where the bit is set.
    int *first;
    int *last;
    float *share;                    // zero before
    unsigned char *incomplete;       // plane, zero before
    double *step_mm;                 // plane: length of a step
    double *depth0_mm;               // plane: depth of step 0
    Facts *lanes;                    // (blocks of rows, channels, LANES)
    Facts *blocks;                   // (blocks of rows, channels)
    const float *mu_in;              // `quantise`: attenuation per mm ...
    unsigned short *mu_out;          //   ... to codes
    const Stored *stored;            // voxels of the materials, in the order of mu
    const float *table;              // (table_entries, MATERIALS): the coefficients of stored value table_first + entry
    float *materials;                // one plane per material, zero before
    double pixel[3], du[3], dv[3], source[3], direction[3], metric[9];  // as in rays.IndexRays
    double pixel_depth_mm, mu_unit;
    Int64 count, stride[3];          // voxels to quantise; distance in memory of neighbours, in voxels
    Int64 volume;                    // voxels of one material
    int shape[3];
    int cone, signed_axis, row0, rows, columns, channels;
    int table_first, table_entries;
};

static_assert(sizeof(Params) == PARAMS_BYTES, "Params differs from kernels.PARAMS");
static_assert(sizeof(Facts) == FACTS_BYTES, "Facts differs from want.FACTS");

struct Ray {
    double b, c, db, dc;        // position at step 0, in voxels, and its change per step
    double step_mm, depth0_mm;
    int first, last;            // steps after the source and up to the pixel
    int low, high;              // of these, all that can meet the lattice
};

// Narrow [low, high] to the steps whose coordinate can lie between voxels -1 and n, one more to either side.
__device__ inline void meet_lattice(double at, double slope, int n, double &low, double &high) {
    if (fabs(slope) < 1e-12) {
        if (at <= -1.0 || at >= n) high = -1.0;
        return;
    }
    const double s0 = (-1.0 - at) / slope, s1 = (n - at) / slope;
    low = fmax(low, fmin(s0, s1) - 1.0);
    high = fmin(high, fmax(s0, s1) + 1.0);
}

__device__ inline int to_step(double x, int n) { return (int)fmin(fmax(x, -1.0), (double)n); }

__device__ inline Ray set_up(const Params &p, int row, int column) {
    double at[3], way[3], ahead = 0.0, length2 = 0.0;
#pragma unroll
    for (int x = 0; x < 3; ++x) {
        at[x] = p.pixel[x] + column * p.du[x] + row * p.dv[x];
        way[x] = p.cone ? at[x] - p.source[x] : p.direction[x];
    }
#pragma unroll
    for (int x = 0; x < 3; ++x)
#pragma unroll
        for (int y = 0; y < 3; ++y) {
            length2 += way[x] * p.metric[3 * x + y] * way[y];
            ahead += p.direction[x] * p.metric[3 * x + y] * (at[y] - p.pixel[y]);
        }
    const int n = p.shape[0];
    const double per_step = fabs(1.0 / way[0]), length = sqrt(length2);
    const double t0 = ((p.signed_axis > 0 ? 0 : n - 1) - at[0]) / way[0];
    Ray ray;
    // Rounded so that a sample exactly on a voxel's border is not decided by the noise of the last bit ...
    const double round = 1e9;
    ray.b = rint((at[1] + t0 * way[1]) * round) / round;
    ray.c = rint((at[2] + t0 * way[2]) * round) / round;
    ray.db = per_step * way[1];
    ray.dc = per_step * way[2];
    // ... and a drift too small to reach the last rounded decimal over the whole march is none.
    if (fabs(ray.db) * n * round < 0.5) ray.db = 0.0;
    if (fabs(ray.dc) * n * round < 0.5) ray.dc = 0.0;
    ray.step_mm = per_step * length;
    double low = 0.0, high = n - 1.0;
    if (p.cone) {
        // t0 counts from the pixel, the source being at -1: keep source < sample <= pixel. A detector often lies in
        // a plane of voxels, where the last bit must not decide either.
        ray.depth0_mm = (t0 + 1.0) * length;
        low = fmax(low, floor((-1.0 - t0) / per_step + 1.0 / round) + 1.0);
        high = fmin(high, floor(-t0 / per_step + 1.0 / round));
    } else {
        ray.depth0_mm = t0 * length + p.pixel_depth_mm + ahead;
    }
    ray.first = to_step(low, n);
    ray.last = to_step(high, n);
    meet_lattice(ray.b, ray.db, p.shape[1], low, high);
    meet_lattice(ray.c, ray.dc, p.shape[2], low, high);
    ray.low = to_step(low, n);
    ray.high = to_step(high, n);
    return ray;
}

// The lowest corner of the voxels around a position, and tent weights: zero outside the lattice, without a branch.
struct Corners {
    float b0, b1, c0, c1;
    int at;
};

__device__ inline Corners corners(float b, float c, float top_b, float top_c, int stride_b, int stride_c) {
    const float low_b = fminf(fmaxf(floorf(b), 0.0f), top_b), low_c = fminf(fmaxf(floorf(c), 0.0f), top_c);
    Corners found;
    found.b0 = fmaxf(0.0f, 1.0f - fabsf(b - low_b));
    found.b1 = fmaxf(0.0f, 1.0f - fabsf(b - low_b - 1.0f));
    found.c0 = fmaxf(0.0f, 1.0f - fabsf(c - low_c));
    found.c1 = fmaxf(0.0f, 1.0f - fabsf(c - low_c - 1.0f));
    found.at = (int)low_b * stride_b + (int)low_c * stride_c;
    return found;
}

__device__ inline float between_corners(const Corners &w, float m00, float m01, float m10, float m11) {
    return w.b0 * (w.c0 * m00 + w.c1 * m01) + w.b1 * (w.c0 * m10 + w.c1 * m11);
}

// Interpolate in a slab.
template <class Voxel>
__device__ inline float sample(const Voxel *slab, const Corners &w, int stride_b, int stride_c) {
    const Voxel *corner = slab + w.at;
    return between_corners(w, (float)__ldg(corner), (float)__ldg(corner + stride_c), (float)__ldg(corner + stride_b),
                           (float)__ldg(corner + stride_b + stride_c));
}

#if MATERIALS && STORED
// The coefficients of what a voxel stores.
__device__ inline const float *coefficients(const Params &p, const Stored *voxel) {
    const int entry = (int)__ldg(voxel) - p.table_first, last = p.table_entries - 1;
    return p.table + (Int64)(entry < 0 ? 0 : entry > last ? last : entry) * MATERIALS;
}
#endif

#if MATERIALS
// Add a slab to the sum of each material.
__device__ inline void add_materials(const Params &p, Int64 slab, const Corners &w, int stride_b, int stride_c,
                                     float *sum) {
#if STORED
    const Stored *corner = p.stored + slab + w.at;
    const float *c00 = coefficients(p, corner), *c01 = coefficients(p, corner + stride_c);
    const float *c10 = coefficients(p, corner + stride_b), *c11 = coefficients(p, corner + stride_b + stride_c);
#pragma unroll
    for (int m = 0; m < MATERIALS; ++m)
        sum[m] += between_corners(w, __ldg(c00 + m), __ldg(c01 + m), __ldg(c10 + m), __ldg(c11 + m));
#else
#pragma unroll
    for (int m = 0; m < MATERIALS; ++m)
        sum[m] += sample(p.stored + m * p.volume + slab, w, stride_b, stride_c);
#endif
}
#endif

// Kahan's sum (Comm. ACM 8 (1965) 40): the error does not grow with the number of terms.
__device__ inline void add(float term, float &total, float &lost) {
    const float more = term - lost, grown = total + more;
    lost = (grown - total) - more;
    total = grown;
}

// The atom of the nearest voxel, or OUTSIDE.
__device__ inline int nearest(const Atom *slab, float b, float c, int n_b, int n_c, int stride_b, int stride_c) {
    const float edge_b = (float)n_b, edge_c = (float)n_c;
    // Not floorf(x + 0.5f): the sum may round up to the next voxel.
    const float floor_b = floorf(b), floor_c = floorf(c);
    const float near_b = floor_b + (b - floor_b >= 0.5f ? 1.0f : 0.0f), near_c = floor_c + (c - floor_c >= 0.5f ? 1.0f : 0.0f);
    const bool inside = near_b >= 0.0f && near_b < edge_b && near_c >= 0.0f && near_c < edge_c;
    const int in_b = (int)fminf(fmaxf(near_b, 0.0f), edge_b - 1.0f);
    const int in_c = (int)fminf(fmaxf(near_c, 0.0f), edge_c - 1.0f);
    const int atom = (int)__ldg(slab + (in_b * stride_b + in_c * stride_c));
    return inside ? atom : OUTSIDE;
}

// Bits of an atom, or of what is there instead.
__device__ inline int flags_of(const Params &p, int atom) {
    return atom >= 0 ? __ldg(p.flags + atom) : atom == OUTSIDE ? PADDING : 0;
}

// Credit a run of steps in one atom to its classes; `next` is the atom that follows.
__device__ inline void close_run(const Params &p, Int64 pixel, int atom, int next, int first, int last, float part) {
#if INCOMPLETE
    const int before = flags_of(p, atom), after = flags_of(p, next);
    if (((before & BODY) && (after & PADDING)) || ((before & PADDING) && (after & BODY))) p.incomplete[pixel] = 1;
#endif
#if CLASSES || SHARE
    const Int64 plane = (Int64)p.rows * p.columns;
#endif
#if CLASSES
    if (atom >= 0)
        for (unsigned int e = __ldg(p.word_start + atom), end = __ldg(p.word_start + atom + 1); e < end; ++e) {
            const unsigned int word = __ldg(p.word_of + e), bits = __ldg(p.word_bits + e);
            unsigned int *met = p.bits + word * plane + pixel;
            const unsigned int before_bits = *met;
            if (bits & ~before_bits) *met = before_bits | bits;
#if STEPS
            for (unsigned int rest = bits; rest; rest &= rest - 1) {
                const int bit = __ffs((int)rest) - 1;
                const Int64 at = (Int64)(32 * word + bit) * plane + pixel;
                const bool known = (before_bits >> bit) & 1u;
                const int length = last - first + 1;
                p.steps[at] = known ? p.steps[at] + length : length;
#if DEEP
                if (!known) p.first[at] = first;
                p.last[at] = last;
#endif
            }
#endif
        }
#endif
#if SHARE
    // What a sample beyond the outermost voxel's border still sees belongs to the background.
    const int seen = atom >= 0 ? atom : 0;
    for (unsigned int e = __ldg(p.word_start + seen), end = __ldg(p.word_start + seen + 1); e < end; ++e) {
        const unsigned int word = __ldg(p.word_of + e);
        for (unsigned int rest = __ldg(p.word_bits + e); rest; rest &= rest - 1)
            p.share[(Int64)(32 * word + __ffs((int)rest) - 1) * plane + pixel] += part;
    }
#endif
}

extern "C" __global__ void __launch_bounds__(BLOCK_X *BLOCK_Y) march(const Params *__restrict__ params) {
    const Params &p = *params;
    const int column = blockIdx.x * BLOCK_X + threadIdx.x, row = blockIdx.y * BLOCK_Y + threadIdx.y;
    if (column >= p.columns || row >= p.rows) return;
    const Int64 pixel = (Int64)row * p.columns + column;
    // A wide fan is followed in one launch per axis.
    if (p.axes && p.axes[pixel] != p.signed_axis) return;

    const bool forward = p.signed_axis > 0;
    const Ray ray = set_up(p, p.row0 + row, column);
#if STEPS || SHARE
    p.step_mm[pixel] = ray.step_mm;
#endif
#if DEEP
    p.depth0_mm[pixel] = ray.depth0_mm;
#endif
    const int n_a = p.shape[0], n_b = p.shape[1], n_c = p.shape[2];
    const int stride_b = (int)p.stride[1], stride_c = (int)p.stride[2];
    const Int64 stride_a = p.stride[0];
    const int middle = (ray.low + ray.high) / 2;
    const float b_mid = (float)(ray.b + middle * ray.db), b_slope = (float)ray.db;
    const float c_mid = (float)(ray.c + middle * ray.dc), c_slope = (float)ray.dc;
#if IMAGE || SHARE || MATERIALS
    const float top_b = (float)(n_b - 2), top_c = (float)(n_c - 2);
#endif
#if MATERIALS
    float basis[MATERIALS], basis_lost[MATERIALS];
#pragma unroll
    for (int m = 0; m < MATERIALS; ++m) basis[m] = basis_lost[m] = 0.0f;
#endif
#if IMAGE
    float total = 0.0f, lost = 0.0f;
#endif
#if LABELLED
    const Atom *const atoms = p.atoms;
    // Where source or detector end a ray inside the body, nothing is missing from it.
    const int behind = ray.last >= n_a - 1 ? OUTSIDE : BEYOND;
    int current = ray.first <= 0 ? OUTSIDE : BEYOND, run_start = 0;
    float part = 0.0f;  // the line integral within the run, where shares are wanted
#endif

    // All threads of a warp pass the same slabs together, so that neighbouring rays read neighbouring voxels; a
    // group's loads are in flight before the first of them is used.
    int group = 0;
    for (; group <= ray.high; group += GROUP) {
        if (group + GROUP <= ray.low) continue;
#if IMAGE || SHARE
        float value[GROUP];
#endif
#if LABELLED
        int atom[GROUP];
#endif
#if MATERIALS
        float basis_sum[MATERIALS];
#pragma unroll
        for (int m = 0; m < MATERIALS; ++m) basis_sum[m] = 0.0f;
#endif
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            const int step = group + g, within = step < n_a ? step : n_a - 1;
            const bool between = ray.first <= step && step <= ray.last;
            const Int64 slab = (forward ? within : n_a - 1 - within) * stride_a;
            const float ds = (float)(step - middle), at_b = b_mid + ds * b_slope, at_c = c_mid + ds * c_slope;
#if IMAGE || SHARE || MATERIALS
            const Corners around = corners(at_b, at_c, top_b, top_c, stride_b, stride_c);
#endif
#if IMAGE || SHARE
            const float found = sample(p.mu + slab, around, stride_b, stride_c);
            value[g] = between ? found : 0.0f;
#endif
#if MATERIALS
            if (between) add_materials(p, slab, around, stride_b, stride_c, basis_sum);
#endif
#if LABELLED
            const int near = nearest(atoms + slab, at_b, at_c, n_b, n_c, stride_b, stride_c);
            atom[g] = between ? near : step < ray.first ? BEYOND : behind;
#endif
        }
#if IMAGE
        float sum = 0.0f;
#pragma unroll
        for (int g = 0; g < GROUP; ++g) sum += value[g];
        add(sum, total, lost);
#endif
#if MATERIALS
#pragma unroll
        for (int m = 0; m < MATERIALS; ++m) add(basis_sum[m], basis[m], basis_lost[m]);
#endif
#if LABELLED
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            if (atom[g] != current) {
                close_run(p, pixel, current, atom[g], run_start, group + g - 1, part);
                current = atom[g];
                run_start = group + g;
                part = 0.0f;
            }
#if SHARE
            part += value[g];
#endif
        }
#endif
    }
#if LABELLED
    // After ray.high no sample lies in the array, so a run that is still open ends with the last group.
    close_run(p, pixel, current, behind, run_start, group - 1, part);
#endif
#if IMAGE
    p.image[pixel] = total * (float)(ray.step_mm * p.mu_unit);
#endif
#if MATERIALS
#pragma unroll
    for (int m = 0; m < MATERIALS; ++m)
        p.materials[(Int64)m * p.rows * p.columns + pixel] = basis[m] * (float)ray.step_mm;
#endif
}

// Turn counts of steps into mm, in place; one thread for each pixel of each channel.
extern "C" __global__ void __launch_bounds__(LINE) finish(const Params *__restrict__ params) {
#if PATH || DEPTH || SHARE
    const Params &p = *params;
    const Int64 plane = (Int64)p.rows * p.columns, at = (Int64)blockIdx.x * LINE + threadIdx.x;
    if (at >= plane * p.channels) return;
    const Int64 pixel = at % plane;
    const double step_mm = p.step_mm[pixel];
#endif
#if PATH || DEPTH
    const int channel = (int)(at / plane);
    const bool met = (p.bits[(channel / 32) * plane + pixel] >> (channel % 32)) & 1u;
#endif
#if PATH
    p.steps[at] = met ? __float_as_int((float)(p.steps[at] * step_mm)) : 0;
#endif
#if DEPTH
    const int nan = 0x7fc00000;
    const double depth0_mm = p.depth0_mm[pixel];
    p.first[at] = met ? __float_as_int((float)(depth0_mm + (p.first[at] - 0.5) * step_mm)) : nan;
    p.last[at] = met ? __float_as_int((float)(depth0_mm + (p.last[at] + 0.5) * step_mm)) : nan;
#endif
#if SHARE
    p.share[at] *= (float)(step_mm * p.mu_unit);
#endif
}

__device__ inline Facts no_facts() {
    const Int64 none = 0x7fffffffffffffffLL;
    return Facts{0, none, -1, none, -1, 0, 0, 0.0, 0.0, 0.0, 0.0};
}

// Facts of every LANES-th column of a block of rows, in a fixed order; before `finish`.
extern "C" __global__ void __launch_bounds__(LINE) facts_of_lanes(const Params *__restrict__ params) {
#if FACTS
    const Params &p = *params;
    const Int64 plane = (Int64)p.rows * p.columns, at = (Int64)blockIdx.x * LINE + threadIdx.x;
    const int blocks = (p.rows + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK;
    if (at >= (Int64)blocks * p.channels * LANES) return;
    const int lane = (int)(at % LANES), channel = (int)(at / LANES % p.channels);
    const int block = (int)(at / LANES / p.channels), top = block * ROWS_PER_BLOCK;
    const int below = top + ROWS_PER_BLOCK < p.rows ? top + ROWS_PER_BLOCK : p.rows;
    Facts facts = no_facts();
    for (int row = top; row < below; ++row)
        for (int column = lane; column < p.columns; column += LANES) {
            const Int64 pixel = (Int64)row * p.columns + column, entry = channel * plane + pixel;
            if (!((p.bits[(channel / 32) * plane + pixel] >> (channel % 32)) & 1u)) continue;
            const Int64 y = p.row0 + row;
            const double step_mm = p.step_mm[pixel], depth0_mm = p.depth0_mm[pixel];
            const double length = p.steps[entry] * step_mm;
            facts.pixels += 1;
            facts.column_min = facts.column_min < column ? facts.column_min : column;
            facts.column_max = facts.column_max > column ? facts.column_max : column;
            facts.row_min = facts.row_min < y ? facts.row_min : y;
            facts.row_max = facts.row_max > y ? facts.row_max : y;
            facts.column_sum += column;
            facts.row_sum += y;
            facts.path_sum_mm += length;
            facts.path_max_mm = fmax(facts.path_max_mm, length);
            facts.entry_sum_mm += depth0_mm + (p.first[entry] - 0.5) * step_mm;
            facts.exit_sum_mm += depth0_mm + (p.last[entry] + 0.5) * step_mm;
        }
    p.lanes[at] = facts;
#endif
}

// Merge the lanes of each block of rows, in their order.
extern "C" __global__ void __launch_bounds__(LINE) facts_of_blocks(const Params *__restrict__ params) {
#if FACTS
    const Params &p = *params;
    const Int64 at = (Int64)blockIdx.x * LINE + threadIdx.x;
    const int blocks = (p.rows + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK;
    if (at >= (Int64)blocks * p.channels) return;
    Facts facts = no_facts();
    for (int lane = 0; lane < LANES; ++lane) {
        const Facts &other = p.lanes[at * LANES + lane];
        if (other.pixels == 0) continue;
        facts.pixels += other.pixels;
        facts.column_min = facts.column_min < other.column_min ? facts.column_min : other.column_min;
        facts.column_max = facts.column_max > other.column_max ? facts.column_max : other.column_max;
        facts.row_min = facts.row_min < other.row_min ? facts.row_min : other.row_min;
        facts.row_max = facts.row_max > other.row_max ? facts.row_max : other.row_max;
        facts.column_sum += other.column_sum;
        facts.row_sum += other.row_sum;
        facts.path_sum_mm += other.path_sum_mm;
        facts.path_max_mm = fmax(facts.path_max_mm, other.path_max_mm);
        facts.entry_sum_mm += other.entry_sum_mm;
        facts.exit_sum_mm += other.exit_sum_mm;
    }
    p.blocks[at] = facts;
#endif
}

// Attenuation to 16-bit multiples of mu_unit, nearest even.
extern "C" __global__ void __launch_bounds__(LINE) quantise(const Params *__restrict__ params) {
    const Params &p = *params;
    const Int64 at = (Int64)blockIdx.x * LINE + threadIdx.x;
    if (at < p.count) p.mu_out[at] = (unsigned short)rint((double)p.mu_in[at] / p.mu_unit);
}
