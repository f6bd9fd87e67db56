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
#define ROOM(K) (8 + 5 * (K)) /* the candidates of a query for which its bound is raised */
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
    float similarity;
    int64_t id;
} Found;

typedef struct {
    const float *vector;
    const int8_t *copy;
    float scale, error, reach; /* reach: the lengths of the copy and of its error */
    float least;               /* what the k-th nearest has at the very least */
    int32_t sum;
    /* The candidates: what each has at most, `place` of what it has at the very least, and where it
     * is. They are noted without an order; the bound is raised when there are `room` of them. */
    int64_t count, room;
    float *upper;
    int32_t *lower, *slot;
} Query;

/* Queries that look at a block together, and side by side what every block needs of each. */
typedef struct {
    Query *queries[TILE];
    const int8_t *copies[TILE];
    int32_t start[TILE]; /* what the 128 of every byte add to a sum, taken away */
    float scale[TILE], reach[TILE], error[TILE], least[TILE];
} Tile;

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

/* A whole number that is the larger the larger the float is. */
INLINE int32_t place(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits >> 31 & INT32_MAX);
}

/* The float of a place. */
INLINE float float_at(int32_t at) {
    int32_t bits = at ^ (at >> 31 & INT32_MAX);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int nearer_first(const void *one, const void *other) {
    return farther(one, other) - farther(other, one);
}

/* The k-th largest of n numbers, of which at least k are not below `low`. It halves what it may be
 * and counts, which takes no branch for each of them. There must be space for LANES more. */
INLINE int32_t kth(int32_t *values, int64_t n, int64_t k, int32_t low) {
    int32_t highs[LANES], lows[LANES], high = INT32_MIN, count = 0;
    for (int i = 0; i < LANES; i++) {
        values[n + i] = INT32_MIN;
        highs[i] = INT32_MIN;
        lows[i] = INT32_MAX;
    }
    for (int64_t at = 0; at < n; at += LANES)
        for (int i = 0; i < LANES; i++)
            highs[i] = values[at + i] > highs[i] ? values[at + i] : highs[i];
    for (int i = 0; i < LANES; i++) high = highs[i] > high ? highs[i] : high;
    while (low < high && count != k) { /* k or more are not below `low`, fewer are above `high` */
        int32_t middle = (int32_t)(((int64_t)low + high + 1) >> 1), counts[LANES] = {0};
        for (int64_t at = 0; at < n; at += LANES)
            for (int i = 0; i < LANES; i++) counts[i] += values[at + i] >= middle;
        count = 0;
        for (int i = 0; i < LANES; i++) count += counts[i];
        low = count >= k ? middle : low;
        high = count >= k ? high : middle - 1;
    }
    for (int64_t at = 0; at < n; at += LANES)
        for (int i = 0; i < LANES; i++) {
            int32_t value = values[at + i];
            lows[i] = value >= low && value < lows[i] ? value : lows[i];
        }
    int32_t least = INT32_MAX;
    for (int i = 0; i < LANES; i++) least = lows[i] < least ? lows[i] : least;
    return least;
}

/* Leave out the candidates that cannot reach the bound. */
INLINE void keep(Query *query) {
    int64_t kept = 0;
    for (int64_t i = 0; i < query->count; i++) {
        float upper = query->upper[i];
        query->upper[kept] = upper;
        query->lower[kept] = query->lower[i];
        query->slot[kept] = query->slot[i];
        kept += upper >= query->least;
    }
    query->count = kept;
}

static int grow(Query *query, int64_t room) {
    size_t size = (size_t)(room + 2 * LANES) * sizeof(float); /* a block, and what `kth` adds */
    float *upper = realloc(query->upper, size);
    if (upper) query->upper = upper;
    int32_t *lower = realloc(query->lower, size);
    if (lower) query->lower = lower;
    int32_t *slot = realloc(query->slot, size);
    if (slot) query->slot = slot;
    query->room = room;
    return upper && lower && slot ? 0 : -1;
}

/* Raise the bound to the k-th best of what the candidates have at the very least. */
#define RAISE(NAME, TARGET, KEEP)                                                                 \
    TARGET static void raise_##NAME(Query *query, int64_t k) {                                    \
        if (query->count >= k)                                                                    \
            query->least = float_at(kth(query->lower, query->count, k, place(query->least)));     \
        KEEP(query);                                                                              \
    }                                                                                             \
                                                                                                  \
    /* After a block's candidates are noted: fewer than `room` are left. */                        \
    TARGET INLINE int settle_##NAME(Tile *tile, int q, int64_t k) {                               \
        Query *query = tile->queries[q];                                                          \
        if (query->count < query->room) return 0;                                                 \
        raise_##NAME(query, k);                                                                   \
        tile->least[q] = query->least;                                                            \
        return 2 * query->count > query->room ? grow(query, 2 * query->count) : 0;                \
    }

/* What the sums of one block say of each of n queries. */
#define WEIGH(NAME, TARGET)                                                                       \
    TARGET INLINE int weigh_##NAME(const Table *table, Tile *tile, int n, int64_t block,          \
                                   int32_t (*sums)[LANES], int64_t k) {                           \
        const float *scale = table->scale + block * LANES, *length = table->length + block * LANES; \
        const float *error = table->error + block * LANES;                                        \
        for (int q = 0; q < n; q++) {                                                             \
            Query *query = tile->queries[q];                                                      \
            float about[LANES], off[LANES], least = query->least;                                 \
            int any = 0;                                                                          \
            for (int i = 0; i < LANES; i++) {                                                     \
                about[i] = scale[i] * query->scale * (float)sums[q][i];                           \
                off[i] = error[i] * query->reach + length[i] * query->error;                      \
                any |= about[i] + off[i] >= least;                                                \
            }                                                                                     \
            for (int i = 0; any && i < LANES; i++) {                                              \
                int64_t at = query->count;                                                        \
                query->upper[at] = about[i] + off[i];                                             \
                query->lower[at] = place(about[i] - off[i]);                                      \
                query->slot[at] = (int32_t)(block * LANES + i);                                   \
                query->count += about[i] + off[i] >= least;                                       \
            }                                                                                     \
            if (settle_##NAME(tile, q, k)) return -1;                                             \
        }                                                                                         \
        return 0;                                                                                 \
    }

RAISE(plain, , keep)
WEIGH(plain, )

INLINE void dots_plain(const uint8_t *block, const uint8_t *ahead, const Tile *tile, int64_t width,
                       int n, int32_t (*sums)[LANES]) {
    (void)ahead;
    for (int q = 0; q < n; q++)
        for (int i = 0; i < LANES; i++) sums[q][i] = tile->start[q];
    for (int64_t at = 0; at < width; at += 4, block += 4 * LANES)
        for (int q = 0; q < n; q++) {
            const int8_t *copy = tile->copies[q] + at;
            for (int i = 0; i < LANES; i++)
                sums[q][i] += block[4 * i] * copy[0] + block[4 * i + 1] * copy[1] +
                              block[4 * i + 2] * copy[2] + block[4 * i + 3] * copy[3];
        }
}

#ifdef X86
#define AVX2 __attribute__((target("avx2")))
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

/* Without vpdpbusd: |a| * (b with a's sign) in pairs stays below 2 * 127 * 127, in 16 bits. */
AVX2 INLINE void dots_avx2(const uint8_t *block, const uint8_t *ahead, const Tile *tile,
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
                __m256i four = _mm256_set1_epi32(*(const Word *)(tile->copies[q] + at));
                __m256i other = _mm256_sign_epi8(four, some);
                __m256i pairs = _mm256_maddubs_epi16(size, other);
                sum[q] = _mm256_add_epi32(sum[q], _mm256_madd_epi16(pairs, ones));
            }
        }
        for (int q = 0; q < n; q++)
            _mm256_storeu_si256((void *)(sums[q] + 8 * half), sum[q]);
    }
}

RAISE(avx2, AVX2, keep)
WEIGH(avx2, AVX2)

/* Up to eight sums by name, of as many queries; an array of them costs twice the time. Of one or two
 * queries there are several for each, so that no sum waits for the one before. */
VNNI INLINE void dots_vnni(const uint8_t *block, const uint8_t *ahead, const Tile *tile,
                           int64_t width, int n, int32_t (*sums)[LANES]) {
    const int8_t *const *copies = tile->copies;
#define START(Q) (Q < n ? _mm512_set1_epi32(tile->start[Q]) : _mm512_setzero_si512())
    __m512i s0 = START(0), s1 = START(1), s2 = START(2), s3 = START(3);
    __m512i s4 = START(4), s5 = START(5), s6 = START(6), s7 = START(7);
#undef START
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

/* As `keep`. */
VNNI INLINE void keep_vnni(Query *query) {
    const __m512 least = _mm512_set1_ps(query->least);
    int64_t kept = 0;
    for (int64_t i = 0; i < query->count; i += LANES) {
        __m512 upper = _mm512_loadu_ps(query->upper + i);
        __mmask16 some = _mm512_cmp_ps_mask(upper, least, _CMP_GE_OQ);
        if (query->count - i < LANES) some &= (1u << (query->count - i)) - 1;
        __m512i lower = _mm512_maskz_compress_epi32(some, _mm512_loadu_si512(query->lower + i));
        __m512i slot = _mm512_maskz_compress_epi32(some, _mm512_loadu_si512(query->slot + i));
        _mm512_storeu_ps(query->upper + kept, _mm512_maskz_compress_ps(some, upper));
        _mm512_storeu_si512(query->lower + kept, lower);
        _mm512_storeu_si512(query->slot + kept, slot);
        kept += __builtin_popcount(some);
    }
    query->count = kept;
}

RAISE(vnni, VNNI, keep_vnni)

/* As the others. All queries are compared first, so that none waits for what is noted of another; few
 * have candidates in a block, and these are gone through by their bits in `any`. */
VNNI INLINE int weigh_vnni(const Table *table, Tile *tile, int n, int64_t block,
                           int32_t (*sums)[LANES], int64_t k) {
    const __m512 scale = _mm512_loadu_ps(table->scale + block * LANES);
    const __m512 length = _mm512_loadu_ps(table->length + block * LANES);
    const __m512 error = _mm512_loadu_ps(table->error + block * LANES);
    unsigned any = 0;
#define ABOUT(Q)                                                                                  \
    _mm512_mul_ps(_mm512_mul_ps(scale, _mm512_set1_ps(tile->scale[Q])),                           \
                  _mm512_cvtepi32_ps(_mm512_loadu_si512(sums[Q])))
#define OFF(Q)                                                                                    \
    _mm512_add_ps(_mm512_mul_ps(error, _mm512_set1_ps(tile->reach[Q])),                           \
                  _mm512_mul_ps(length, _mm512_set1_ps(tile->error[Q])))
    for (int q = 0; q < n; q++) {
        __m512 upper = _mm512_add_ps(ABOUT(q), OFF(q)), least = _mm512_set1_ps(tile->least[q]);
        any |= (unsigned)(_mm512_cmp_ps_mask(upper, least, _CMP_GE_OQ) != 0) << q;
    }
    if (!any) return 0;
    const __m512i slots = _mm512_add_epi32(
        _mm512_set1_epi32((int32_t)(block * LANES)),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    for (; any; any &= any - 1) {
        int q = __builtin_ctz(any);
        Query *query = tile->queries[q];
        int64_t at = query->count;
        __m512 about = ABOUT(q);
        __m512 off = OFF(q);
        __m512 upper = _mm512_add_ps(about, off);
        __m512i lower = _mm512_castps_si512(_mm512_sub_ps(about, off));
        lower = _mm512_xor_si512(lower, _mm512_srli_epi32(_mm512_srai_epi32(lower, 31), 1));
        __m512 least = _mm512_set1_ps(tile->least[q]);
        __mmask16 some = _mm512_cmp_ps_mask(upper, least, _CMP_GE_OQ);
        _mm512_storeu_ps(query->upper + at, _mm512_maskz_compress_ps(some, upper));
        _mm512_storeu_si512(query->lower + at, _mm512_maskz_compress_epi32(some, lower));
        _mm512_storeu_si512(query->slot + at, _mm512_maskz_compress_epi32(some, slots));
        query->count = at + __builtin_popcount(some);
        if (settle_vnni(tile, q, k)) return -1;
    }
#undef ABOUT
#undef OFF
    return 0;
}
#endif

INLINE Tile tile_of(Query *const *queries, int64_t n) {
    Tile tile;
    for (int64_t q = 0; q < n; q++) {
        Query *query = tile.queries[q] = queries[q];
        tile.copies[q] = query->copy;
        tile.start[q] = -128 * query->sum;
        tile.scale[q] = query->scale;
        tile.reach[q] = query->reach;
        tile.error[q] = query->error;
        tile.least[q] = query->least;
    }
    return tile;
}

/* Bring those candidates to the front that may be the k likeliest, and say how many: their rows are
 * read in any case, or nearly. */
INLINE int64_t likeliest_first(Query *query, int64_t k) {
    int64_t front = 0;
    int32_t *places = query->lower, least = place(query->least);
    for (int64_t i = 0; i < query->count; i++) places[i] = place(query->upper[i]);
    if (query->count > k) least = kth(places, query->count, k, least);
    for (int64_t i = 0; i < query->count; i++) {
        float upper = query->upper[i];
        int32_t slot = query->slot[i];
        query->upper[i] = query->upper[front];
        query->slot[i] = query->slot[front];
        query->upper[front] = upper;
        query->slot[front] = slot;
        front += place(upper) >= least;
    }
    return front;
}

/* One cell against some queries: a tile of 8, 4 or 2 of them, or one, for each block while it is in
 * the cache. What comes after a block is fetched meanwhile where it does not lie behind it: what does, the
 * processor guesses, and fetches sooner. */
#define LOOK(NAME, N)                                                                             \
    (dots_##NAME(from, ahead, &tile, width, N, sums),                                             \
     weigh_##NAME(table, &tile, N, block, sums, k))
#define SCAN(NAME, TARGET)                                                                        \
    TARGET static int scan_##NAME(const Table *table, Query *const *queries, int64_t n,           \
                                  int32_t cell, int32_t then, int64_t k) {                        \
        _Alignas(64) int32_t sums[TILE][LANES]; /* else a register is written to two lines */     \
        int32_t begin = table->first[cell], block = begin;                                        \
        int64_t width = table->width, size = LANES * width;                                       \
        for (; begin >= 0; begin = block)                                                         \
            for (int64_t q = 0, each; q < n; q += each) {                                         \
                each = n - q < 2 ? 1 : n - q < 4 ? 2 : n - q < TILE ? 4 : TILE;                   \
                Tile tile = tile_of(queries + q, each);                                           \
                block = begin;                                                                    \
                for (int left = CHUNK; left > 0 && block >= 0; left--) {                          \
                    const uint8_t *from = table->blocks + block * size;                           \
                    int32_t next = table->next[block], after = next >= 0 ? next : then;           \
                    int jumps = after >= 0 && after != block + 1;                                 \
                    const uint8_t *ahead = jumps ? table->blocks + after * size : NULL;           \
                    int failed = each == 1   ? LOOK(NAME, 1)                                      \
                                 : each == 2 ? LOOK(NAME, 2)                                      \
                                 : each == 4 ? LOOK(NAME, 4)                                      \
                                             : LOOK(NAME, TILE);                                  \
                    if (failed) return -1;                                                        \
                    block = next;                                                                 \
                }                                                                                 \
            }                                                                                     \
        return 0;                                                                                 \
    }                                                                                             \
                                                                                                  \
    TARGET static int64_t choose_##NAME(const Table *table, Query *query, int64_t k, Found *best, \
                                        float *sums) {                                            \
        int64_t n = 0, dim = table->dim, first;                                                   \
        raise_##NAME(query, k);                                                                   \
        first = likeliest_first(query, k);                                                        \
        for (int64_t i = 0; i < query->count; i++) {                                              \
            if (n == k && query->upper[i] < best[0].similarity) continue;                         \
            const int32_t *slot = query->slot + i;                                                \
            int64_t at = table->rows[*slot];                                                      \
            if (at >= table->height) continue; /* whoever has the rows is ahead of us */          \
            if (i + AHEAD < first && table->rows[slot[AHEAD]] < table->height) {                  \
                const float *next = table->matrix + table->rows[slot[AHEAD]] * dim;               \
                for (int64_t j = 0; j < dim; j += 16) __builtin_prefetch(next + j);               \
            }                                                                                     \
            const float *row = table->matrix + at * dim;                                          \
            Found found = {product(row, query->vector, dim, sums), table->ids[*slot]};            \
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

SCAN(plain, )
#ifdef X86
SCAN(avx2, AVX2)
SCAN(vnni, VNNI)
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

static int64_t choose(const Table *table, int level, Query *query, int64_t k, Found *best,
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
                Word four = *(const Word *)(copy + at) ^ (Word)0x80808080; /* each plus 128 */    \
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
    Found *best = malloc((size_t)k * sizeof *best);
    float *sums = malloc((size_t)width * sizeof *sums);
    if (!queries || !some || !pairs || !copies || !best || !sums) goto done;
    for (int64_t i = 0; i < n; i++) {
        Query *query = queries + i;
        int8_t *copy = copies + i * width;
        query->vector = vectors + i * table->dim;
        query->copy = copy;
        ask(table, level, query->vector, copy, query);
        query->least = -INFINITY;
        if (grow(query, ROOM(k))) goto done;
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
        for (int64_t i = 0; i < n; i++) {
            free(queries[i].upper);
            free(queries[i].lower);
            free(queries[i].slot);
        }
    free(queries);
    free(some);
    free(pairs);
    free(copies);
    free(best);
    free(sums);
    return failed;
}
