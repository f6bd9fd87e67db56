/* The nearest of many vectors, exactly: a scan of their int8 copies, and the best told apart in
 * float32. Plain C without Python's headers, called by store/_kernels.py through ctypes.
 *
 * A copy says how far it is from its vector, so that each product has a bound on its error. What
 * cannot be among the k nearest by its bound is left out, all others are compared in float32. So
 * the answer is that of comparing all of them in float32, whatever the processor: the copies only
 * say which need not be looked at. store/_exact.py adds a product up in the same order.
 *
 * Copies are kept 16 at a time, in blocks of (dimensions / 4, 16, 4) bytes above 128: so one
 * instruction takes 4 numbers of each of 16 vectors, and no sum goes across a register.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define X86 1
#endif

#define LANES 16
#define TILE 8
#define CHUNK 48 /* blocks that are read from the cache for every query, once they are there */
#define AHEAD 1 /* how many candidates before its turn a row is fetched */
#define INLINE static inline __attribute__((always_inline))
/* What float32 may round off, of a product and of its bound, relative to the lengths. */
#define SLACK 4e-6f
/* Added and taken away again, it leaves the nearest whole number. */
#define NEAREST 12582912.0f

typedef struct {
    uint8_t *blocks;     /* (blocks, width / 4, 16, 4) */
    float *scale;        /* (slots,) what one step of a copy is */
    float *length;       /* (slots,) of the copy */
    float *error;        /* (slots,) of the copy; NaN where nothing is kept */
    const int32_t *rows; /* (slots,) */
    const int64_t *ids;  /* (slots,) */
    const float *matrix; /* (height, dim) */
    const int32_t *first; /* (cells,) the first block of each; -1 where it has none */
    const int32_t *next;  /* (blocks,) the next one of its cell; -1 after the last */
    int64_t dim, width;  /* width: dim, rounded up to a multiple of 16 */
    int64_t height, cells;
} Table;

typedef int32_t __attribute__((may_alias, aligned(1))) Word;

typedef struct {
    float upper;
    int32_t slot;
} Candidate;

typedef struct {
    float similarity;
    int64_t id;
} Found;

typedef struct {
    const float *vector;
    const int8_t *copy;
    float scale, error, reach; /* reach: the lengths of the copy and of its error */
    float least;               /* what the k-th nearest has at the very least */
    int32_t sum;
    int64_t lowers, count, room;
    float *lower; /* a heap of the k best lower bounds, the worst at its root */
    Candidate *candidates;
} Query;

/* How a vector is copied: scale, length of the copy, its distance from the vector. */
INLINE void quantise(const float *from, int64_t dim, int8_t *to, float *scale, float *length,
                     float *error) {
    float most = 0.0f, lengths[LANES] = {0}, offs[LANES] = {0}, wholes[LANES] = {0};
    for (int64_t i = 0; i < dim; i++) {
        float size = from[i] < 0.0f ? -from[i] : from[i];
        most = size > most ? size : most;
    }
    float step = most > 1e-30f ? most / 127.0f : 0.0f, inverse = step > 0.0f ? 1.0f / step : 0.0f;
    for (int64_t at = 0; at < dim; at += LANES) {
        int64_t n = dim - at < LANES ? dim - at : LANES;
        for (int64_t i = 0; i < n; i++) {
            float value = from[at + i], steps = value * inverse + NEAREST - NEAREST;
            steps = steps > 127.0f ? 127.0f : steps < -127.0f ? -127.0f : steps;
            float near = steps * step, left = value - near;
            to[at + i] = (int8_t)steps;
            lengths[i] += near * near;
            offs[i] += left * left;
            wholes[i] += value * value;
        }
    }
    for (int i = 1; i < LANES; i++) {
        lengths[0] += lengths[i];
        offs[0] += offs[i];
        wholes[0] += wholes[i];
    }
    *scale = step;
    *length = sqrtf(lengths[0]) * (1.0f + SLACK);
    *error = sqrtf(offs[0]) * (1.0f + SLACK) + sqrtf(wholes[0]) * SLACK;
}

/* The order of the sum is what store/_exact.py has: halves upon halves. */
INLINE float product(const float *x, const float *y, int64_t dim, float *sums) {
    int64_t half = 1;
    while (2 * half < dim) half *= 2;
    if (dim == 1) return x[0] * y[0];
    for (int64_t i = 0; i < dim - half; i++) sums[i] = x[i] * y[i] + x[i + half] * y[i + half];
    for (int64_t i = dim - half; i < half; i++) sums[i] = x[i] * y[i];
    for (; half > LANES; half /= 2)
        for (int64_t i = 0; i < half / 2; i++) sums[i] += sums[i + half / 2];
    if (half < LANES) {
        for (half /= 2; half > 0; half /= 2)
            for (int64_t i = 0; i < half; i++) sums[i] += sums[i + half];
        return sums[0];
    }
    float eight[8], four[4]; /* the last sums do not wait for memory */
    for (int i = 0; i < 8; i++) eight[i] = sums[i] + sums[i + 8];
    for (int i = 0; i < 4; i++) four[i] = eight[i] + eight[i + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

static float clipped(float value) {
    return value > 1.0f ? 1.0f : value < -1.0f ? -1.0f : value;
}

static void sink(float *heap, int64_t n, int64_t at, float value) {
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
}

static int farther(const Found *one, const Found *other) {
    if (one->similarity != other->similarity) return one->similarity < other->similarity;
    return one->id < other->id;
}

static void sink_found(Found *heap, int64_t n, int64_t at, Found value) {
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && farther(&heap[child + 1], &heap[child])) child++;
        if (!farther(&heap[child], &value)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
}

static int nearer_first(const void *one, const void *other) {
    return farther(one, other) - farther(other, one);
}

static int likelier_first(const void *one, const void *other) {
    float a = ((const Candidate *)one)->upper, b = ((const Candidate *)other)->upper;
    return (a < b) - (a > b);
}

static void prune(Query *query) {
    int64_t kept = 0;
    for (int64_t i = 0; i < query->count; i++)
        if (query->candidates[i].upper >= query->least)
            query->candidates[kept++] = query->candidates[i];
    query->count = kept;
}

static int note(Query *query, int32_t slot, float upper, float lower, int64_t k) {
    if (query->count == query->room) {
        prune(query);
        if (2 * query->count > query->room) {
            Candidate *more = realloc(query->candidates, 2 * query->room * sizeof *more);
            if (!more) return -1;
            query->candidates = more;
            query->room *= 2;
        }
    }
    query->candidates[query->count++] = (Candidate){upper, slot};
    if (query->lowers < k) {
        float *heap = query->lower;
        int64_t at = query->lowers++;
        for (; at > 0 && heap[(at - 1) / 2] > lower; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
        heap[at] = lower;
        if (query->lowers == k) query->least = heap[0];
    } else if (lower > query->least) {
        sink(query->lower, k, 0, lower);
        query->least = query->lower[0];
    }
    return 0;
}

/* What the sums of one block say of each of n queries. */
INLINE int weigh(const Table *table, Query *const *queries, int n, int64_t block,
                 int32_t (*sums)[LANES], int64_t k) {
    const float *scale = table->scale + block * LANES, *length = table->length + block * LANES;
    const float *error = table->error + block * LANES;
    for (int q = 0; q < n; q++) {
        Query *query = queries[q];
        float about[LANES], off[LANES];
        int any = 0;
        for (int i = 0; i < LANES; i++) {
            about[i] = scale[i] * query->scale * (float)(sums[q][i] - 128 * query->sum);
            off[i] = error[i] * query->reach + length[i] * query->error;
            any |= about[i] + off[i] >= query->least;
        }
        for (int i = 0; any && i < LANES; i++) {
            float upper = about[i] + off[i];
            if (upper >= query->least &&
                note(query, (int32_t)(block * LANES + i), upper, about[i] - off[i], k))
                return -1;
        }
    }
    return 0;
}

INLINE void dots_plain(const uint8_t *block, const uint8_t *ahead, const int8_t *const *copies,
                       int64_t width, int n, int32_t (*sums)[LANES]) {
    (void)ahead;
    memset(sums, 0, sizeof(*sums) * (size_t)n);
    for (int64_t at = 0; at < width; at += 4, block += 4 * LANES)
        for (int q = 0; q < n; q++) {
            const int8_t *copy = copies[q] + at;
            for (int i = 0; i < LANES; i++)
                sums[q][i] += block[4 * i] * copy[0] + block[4 * i + 1] * copy[1] +
                              block[4 * i + 2] * copy[2] + block[4 * i + 3] * copy[3];
        }
}

#ifdef X86
#define AVX2 __attribute__((target("avx2")))
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

/* Without vpdpbusd: |a| * (b with a's sign) in pairs stays below 2 * 127 * 127, in 16 bits. */
AVX2 INLINE void dots_avx2(const uint8_t *block, const uint8_t *ahead, const int8_t *const *copies,
                           int64_t width, int n, int32_t (*sums)[LANES]) {
    const __m256i middle = _mm256_set1_epi8((char)0x80), ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; half++) {
        __m256i sum[TILE];
        for (int q = 0; q < n; q++) sum[q] = _mm256_setzero_si256();
        for (int64_t at = 0; at < width; at += 4) {
            const uint8_t *from = block + at * LANES + 32 * half;
            if (ahead && n == 1 && half == 0) __builtin_prefetch(ahead + at * LANES);
            __m256i some = _mm256_xor_si256(_mm256_loadu_si256((const void *)from), middle);
            __m256i size = _mm256_abs_epi8(some);
            for (int q = 0; q < n; q++) {
                __m256i four = _mm256_set1_epi32(*(const Word *)(copies[q] + at));
                __m256i other = _mm256_sign_epi8(four, some);
                __m256i pairs = _mm256_maddubs_epi16(size, other);
                sum[q] = _mm256_add_epi32(sum[q], _mm256_madd_epi16(pairs, ones));
            }
        }
        for (int q = 0; q < n; q++)
            _mm256_storeu_si256((void *)(sums[q] + 8 * half), sum[q]);
    }
    for (int q = 0; q < n; q++) { /* as the others, whose blocks are above 128 */
        int32_t above = 0;
        for (int64_t i = 0; i < width; i++) above += copies[q][i];
        for (int i = 0; i < LANES; i++) sums[q][i] += 128 * above;
    }
}

/* Up to eight sums by name, of as many queries; an array of them costs twice the time. Of one or two
 * queries there are several for each, so that no sum waits for the one before. */
VNNI INLINE void dots_vnni(const uint8_t *block, const uint8_t *ahead, const int8_t *const *copies,
                           int64_t width, int n, int32_t (*sums)[LANES]) {
    __m512i s0, s1, s2, s3, s4, s5, s6, s7;
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = _mm512_setzero_si512();
#define FROM(AT) _mm512_loadu_si512(block + 4 * LANES * (AT))
#define ADD(SUM, SOME, COPY, AT) /* by its name: compilers load the copy apart, and move the sums */ \
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"                                                        \
            : "+v"(SUM)                                                                           \
            : "v"(SOME), "m"(((const Word *)(COPY))[AT]))
    for (int64_t at = 0; n == 1 && at < width / 4; at += 4) {
        for (int i = 0; ahead && i < 4; i++)
            __builtin_prefetch(ahead + 4 * LANES * (at + i));
        ADD(s0, FROM(at), copies[0], at);
        ADD(s1, FROM(at + 1), copies[0], at + 1);
        ADD(s2, FROM(at + 2), copies[0], at + 2);
        ADD(s3, FROM(at + 3), copies[0], at + 3);
    }
    for (int64_t at = 0; n == 2 && at < width / 4; at += 2) {
        __m512i some = FROM(at), more = FROM(at + 1);
        for (int i = 0; ahead && i < 2; i++)
            __builtin_prefetch(ahead + 4 * LANES * (at + i));
        ADD(s0, some, copies[0], at);
        ADD(s1, some, copies[1], at);
        ADD(s2, more, copies[0], at + 1);
        ADD(s3, more, copies[1], at + 1);
    }
    for (int64_t at = 0; n > 2 && at < width / 4; at++) {
        __m512i some = FROM(at);
        ADD(s0, some, copies[0], at);
        ADD(s1, some, copies[1], at);
        ADD(s2, some, copies[2], at);
        ADD(s3, some, copies[3], at);
        if (n <= 4) continue;
        ADD(s4, some, copies[4], at);
        ADD(s5, some, copies[5], at);
        ADD(s6, some, copies[6], at);
        ADD(s7, some, copies[7], at);
    }
#undef ADD
#undef FROM
    if (n <= 2) {
        s0 = _mm512_add_epi32(s0, s2);
        s1 = _mm512_add_epi32(s1, s3);
    }
    if (n == 1) s0 = _mm512_add_epi32(s0, s1);
    _mm512_storeu_si512(sums[0], s0);
    if (n == 1) return;
    _mm512_storeu_si512(sums[1], s1);
    if (n == 2) return;
    _mm512_storeu_si512(sums[2], s2);
    _mm512_storeu_si512(sums[3], s3);
    if (n == 4) return;
    _mm512_storeu_si512(sums[4], s4);
    _mm512_storeu_si512(sums[5], s5);
    _mm512_storeu_si512(sums[6], s6);
    _mm512_storeu_si512(sums[7], s7);
}

/* As `weigh`. What few blocks have is looked at apart, so that no query waits for another's. */
VNNI INLINE int weigh_vnni(const Table *table, Query *const *queries, int n, int64_t block,
                           int32_t (*sums)[LANES], int64_t k) {
    const __m512 scale = _mm512_loadu_ps(table->scale + block * LANES);
    const __m512 length = _mm512_loadu_ps(table->length + block * LANES);
    const __m512 error = _mm512_loadu_ps(table->error + block * LANES);
    uint16_t near[TILE];
    unsigned any = 0;
#define ABOUT(Q)                                                                                  \
    _mm512_mul_ps(_mm512_mul_ps(scale, _mm512_set1_ps(queries[Q]->scale)),                         \
                  _mm512_cvtepi32_ps(_mm512_sub_epi32(                                            \
                      _mm512_loadu_si512(sums[Q]), _mm512_set1_epi32(128 * queries[Q]->sum))))
#define OFF(Q)                                                                                    \
    _mm512_add_ps(_mm512_mul_ps(error, _mm512_set1_ps(queries[Q]->reach)),                         \
                  _mm512_mul_ps(length, _mm512_set1_ps(queries[Q]->error)))
    for (int q = 0; q < n; q++) {
        near[q] = _mm512_cmp_ps_mask(_mm512_add_ps(ABOUT(q), OFF(q)),
                                     _mm512_set1_ps(queries[q]->least), _CMP_GE_OQ);
        any |= near[q];
    }
    if (!any) return 0;
    for (int q = 0; q < n; q++) {
        if (!near[q]) continue;
        float uppers[LANES], lowers[LANES];
        _mm512_storeu_ps(uppers, _mm512_add_ps(ABOUT(q), OFF(q)));
        _mm512_storeu_ps(lowers, _mm512_sub_ps(ABOUT(q), OFF(q)));
        for (unsigned left = near[q]; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            if (uppers[i] >= queries[q]->least &&
                note(queries[q], (int32_t)(block * LANES + i), uppers[i], lowers[i], k))
                return -1;
        }
    }
#undef ABOUT
#undef OFF
    return 0;
}
#endif

/* One cell against some queries: a tile of 8, 4 or 2 of them, or one, for each block while it is in
 * the cache. What comes after a block is fetched meanwhile where it does not lie behind it: what does, the
 * processor guesses, and fetches sooner. */
#define LOOK(DOTS, WEIGH, N)                                                                      \
    (DOTS(from, ahead, copies, width, N, sums), WEIGH(table, queries + q, N, block, sums, k))
#define SCAN(NAME, TARGET, DOTS, WEIGH)                                                           \
    TARGET static int scan_##NAME(const Table *table, Query *const *queries, int64_t n,           \
                                  int32_t cell, int32_t then, int64_t k) {                        \
        int32_t sums[TILE][LANES], begin = table->first[cell], block = begin;                     \
        const int8_t *copies[TILE];                                                               \
        int64_t width = table->width, size = LANES * width;                                       \
        for (; begin >= 0; begin = block)                                                         \
            for (int64_t q = 0, tile; q < n; q += tile) {                                         \
                tile = n - q < 2 ? 1 : n - q < 4 ? 2 : n - q < TILE ? 4 : TILE;                   \
                for (int64_t i = 0; i < tile; i++) copies[i] = queries[q + i]->copy;              \
                block = begin;                                                                    \
                for (int left = CHUNK; left > 0 && block >= 0; left--) {                          \
                    const uint8_t *from = table->blocks + block * size;                           \
                    int32_t next = table->next[block], after = next >= 0 ? next : then;           \
                    int jumps = after >= 0 && after != block + 1;                                 \
                    const uint8_t *ahead = jumps ? table->blocks + after * size : NULL;           \
                    int failed = tile == 1   ? LOOK(DOTS, WEIGH, 1)                               \
                                 : tile == 2 ? LOOK(DOTS, WEIGH, 2)                               \
                                 : tile == 4 ? LOOK(DOTS, WEIGH, 4)                               \
                                             : LOOK(DOTS, WEIGH, TILE);                           \
                    if (failed) return -1;                                                        \
                    block = next;                                                                 \
                }                                                                                 \
            }                                                                                     \
        return 0;                                                                                 \
    }                                                                                             \
                                                                                                  \
    TARGET static int64_t choose_##NAME(const Table *table, const Query *query, int64_t k,     \
                                        Found *best, float *sums) {                               \
        int64_t n = 0, dim = table->dim;                                                          \
        for (int64_t i = 0; i < query->count; i++) {                                              \
            const Candidate *one = query->candidates + i;                                         \
            if (n == k && one->upper < best[0].similarity) break;                                 \
            int64_t at = table->rows[one->slot];                                                  \
            if (at >= table->height) continue; /* whoever has the rows is ahead of us */          \
            if (i + AHEAD < query->count && table->rows[one[AHEAD].slot] < table->height) {       \
                const float *next = table->matrix + table->rows[one[AHEAD].slot] * dim;           \
                for (int64_t j = 0; j < dim; j += 16) __builtin_prefetch(next + j);               \
            }                                                                                     \
            const float *row = table->matrix + at * dim;                                          \
            Found found = {product(row, query->vector, dim, sums), table->ids[one->slot]};        \
            if (n < k) {                                                                          \
                best[n++] = found;                                                                \
                if (n == k)                                                                       \
                    for (int64_t j = k / 2; j-- > 0;) sink_found(best, k, j, best[j]);            \
            } else if (farther(best, &found)) {                                                   \
                sink_found(best, k, 0, found);                                                    \
            }                                                                                     \
        }                                                                                         \
        return n;                                                                                 \
    }

SCAN(plain, , dots_plain, weigh)
#ifdef X86
SCAN(avx2, AVX2, dots_avx2, weigh)
SCAN(vnni, VNNI, dots_vnni, weigh_vnni)
#endif

/* The CRC-32 of this file, from hatch_build.py: a library of other source is not used. */
uint32_t scan_source(void) { return SOURCE; }

/* The best this processor has: 0 plain, 1 AVX2, 2 AVX-512 with VNNI. */
int scan_level(void) {
#ifdef X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return 2;
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

static int scan(const Table *table, int level, Query *const *queries, int64_t n, int32_t cell,
                int32_t then, int64_t k) {
#ifdef X86
    if (level == 2) return scan_vnni(table, queries, n, cell, then, k);
    if (level == 1) return scan_avx2(table, queries, n, cell, then, k);
#endif
    (void)level;
    return scan_plain(table, queries, n, cell, then, k);
}

static int64_t choose(const Table *table, int level, const Query *query, int64_t k, Found *best,
                      float *sums) {
#ifdef X86
    if (level == 2) return choose_vnni(table, query, k, best, sums);
    if (level == 1) return choose_avx2(table, query, k, best, sums);
#endif
    (void)level;
    return choose_plain(table, query, k, best, sums);
}

typedef struct {
    int32_t cell;
    Query *query;
} Pair;

static int cell_first(const void *one, const void *other) {
    int32_t a = ((const Pair *)one)->cell, b = ((const Pair *)other)->cell;
    return (a > b) - (a < b);
}

/* Wider registers give the same bits: every sum has LANES parts, whatever adds them up. */
#define PUT(NAME, TARGET)                                                                         \
    TARGET static void ask_##NAME(const Table *table, const float *vector, int8_t *copy,          \
                                  Query *query) {                                                 \
        float length;                                                                             \
        quantise(vector, table->dim, copy, &query->scale, &length, &query->error);                \
        query->reach = length + query->error;                                                     \
        for (int64_t j = 0; j < table->dim; j++) query->sum += copy[j];                           \
    }                                                                                             \
                                                                                                  \
    TARGET static void put_##NAME(const Table *table, const int32_t *slots, int64_t n,            \
                                  int8_t *copy) {                                                 \
        for (int64_t i = 0; i < n; i++) {                                                         \
            int64_t slot = slots[i];                                                              \
            uint8_t *to = table->blocks + slot / LANES * LANES * table->width + slot % LANES * 4; \
            quantise(table->matrix + table->rows[slot] * table->dim, table->dim, copy,            \
                     table->scale + slot, table->length + slot, table->error + slot);             \
            for (int64_t at = 0; at < table->width; at += 4, to += 4 * LANES) {                   \
                Word four = *(const Word *)(copy + at) ^ (Word)0x80808080; /* each plus 128 */     \
                memcpy(to, &four, sizeof four);                                                   \
            }                                                                                     \
        }                                                                                         \
    }

PUT(plain, )
#ifdef X86
PUT(avx2, AVX2)
PUT(vnni, VNNI)
#endif

/* Copy `n` rows of the matrix into these slots; -1 where memory is wanting. */
int scan_put(const Table *table, int level, const int32_t *slots, int64_t n) {
    int8_t *copy = calloc((size_t)table->width, 1);
    if (!copy) return -1;
#ifdef X86
    if (level == 2)
        put_vnni(table, slots, n, copy);
    else if (level == 1)
        put_avx2(table, slots, n, copy);
    else
#endif
        put_plain(table, slots, n, copy);
    (void)level;
    free(copy);
    return 0;
}

/* The copy of a query, and what bounds its products. */
static void ask(const Table *table, int level, const float *vector, int8_t *copy, Query *query) {
#ifdef X86
    if (level == 2) {
        ask_vnni(table, vector, copy, query);
        return;
    }
    if (level == 1) {
        ask_avx2(table, vector, copy, query);
        return;
    }
#endif
    (void)level;
    ask_plain(table, vector, copy, query);
}

/* The k nearest to each of n queries, nearest first, of two equally near the larger id first.
 *
 * cells: which of them are looked at, from starts[i] to starts[i + 1] for query i; all of them for
 * every query where there are no cells. counts: how many were found of each; none of a query of
 * zeros. -1 where memory is wanting.
 */
int scan_nearest(const Table *table, int level, const float *vectors, int64_t n, int64_t k,
                 const int32_t *cells, const int64_t *starts, int64_t *ids, float *similarities,
                 int64_t *counts) {
    int failed = -1;
    int64_t many = cells ? starts[n] : 0, width = table->width;
    Query *queries = calloc((size_t)n, sizeof *queries);
    Query **some = malloc((size_t)n * sizeof *some);
    Pair *pairs = malloc((size_t)(many + 1) * sizeof *pairs);
    int8_t *copies = calloc((size_t)(n * width), 1);
    float *lower = malloc((size_t)(n * k) * sizeof *lower);
    Found *best = malloc((size_t)k * sizeof *best);
    float *sums = malloc((size_t)width * sizeof *sums);
    if (!queries || !some || !pairs || !copies || !lower || !best || !sums) goto done;
    for (int64_t i = 0; i < n; i++) {
        Query *query = queries + i;
        int8_t *copy = copies + i * width;
        query->vector = vectors + i * table->dim;
        query->copy = copy;
        ask(table, level, query->vector, copy, query);
        query->least = -INFINITY;
        query->lower = lower + i * k;
        query->room = 4 * k > 256 ? 4 * k : 256;
        query->candidates = malloc((size_t)query->room * sizeof(Candidate));
        if (!query->candidates) goto done;
        some[i] = query;
        for (int64_t j = cells ? starts[i] : 0; cells && j < starts[i + 1]; j++)
            pairs[j] = (Pair){cells[j], query};
    }
    for (int32_t cell = 0; !cells && cell < table->cells; cell++) {
        int32_t then = cell + 1 < table->cells ? table->first[cell + 1] : -1;
        if (scan(table, level, some, n, cell, then, k)) goto done;
    }
    if (n > 1) qsort(pairs, (size_t)many, sizeof *pairs, cell_first);
    for (int64_t at = 0, each; at < many; at += each) {
        int32_t cell = pairs[at].cell;
        for (each = 0; at + each < many && pairs[at + each].cell == cell; each++)
            some[each] = pairs[at + each].query;
        int32_t then = at + each < many ? table->first[pairs[at + each].cell] : -1;
        if (scan(table, level, some, each, cell, then, k)) goto done;
    }
    for (int64_t i = 0; i < n; i++) {
        Query *query = queries + i;
        prune(query);
        qsort(query->candidates, (size_t)query->count, sizeof(Candidate), likelier_first);
        counts[i] = query->error > 0.0f ? choose(table, level, query, k, best, sums) : 0;
        qsort(best, (size_t)counts[i], sizeof *best, nearer_first);
        for (int64_t j = 0; j < counts[i]; j++) {
            ids[i * k + j] = best[j].id;
            similarities[i * k + j] = clipped(best[j].similarity);
        }
    }
    failed = 0;
done:
    if (queries)
        for (int64_t i = 0; i < n; i++) free(queries[i].candidates);
    free(queries);
    free(some);
    free(pairs);
    free(copies);
    free(lower);
    free(best);
    free(sums);
    return failed;
}
