/* What `nested` proposes, for some queries: the cells of each, the posterior of every arm, and the
 * integrand of P(the arm is the best) but for exp and tanh; what it learns of outcomes whose queries
 * have a cell; and a round of grouping the cells. Plain C without Python's headers, called by policies/_native.py through
 * ctypes.
 *
 * The bits are those of policies/nested.py, _borrowed.py, _explore.py, _cells.py, _grouping.py and
 * _watch.py by numpy: distances and counts are sums of whole numbers, exact in any order; all else is done by the
 * same operations in the same order, without contraction, and `sum` adds up as numpy's add.reduce
 * does.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define X86 1
#endif

#define GRID 1024.0f
#define EXACT 16777216.0f /* squared length up to which products are exact in float32 */
#define SAME (0.001 * 1024.0 * 1024.0)
#define COIN 0.2
#define LEAST_COIN 0.03
#define LINE 4.0
#define SEEN 10.0
#define MOST 2 /* outcomes of one query */
#define TARGET 65536.0
#define PLACES 40
#define NEAREST 12582912.0f /* added and taken away again, it leaves the nearest whole number */
#define NEAREST_DOUBLE 6755399441055744.0 /* the same of a double; `rint` is called for each */

typedef struct {
    const int16_t *centres;      /* (none, dim) */
    const float *norms;          /* (used,) their squared lengths */
    const int64_t *group;        /* (none,) */
    double *n, *s;               /* (none + 2, width) */
    double *all_n, *all_s;       /* (width,) their sums */
    double *group_n, *group_s;   /* (groups + 1, width) */
    double *squares;             /* (width,) */
    double *up, *down, *since;   /* (width,) */
    int64_t *mass;               /* (none,) */
    int32_t *places_of;          /* (none, dim) sums of the queries of each cell */
    const int64_t *columns;      /* (arms,) of each arm; negative for one never seen */
    const double *price;         /* (arms,) its logarithm, from the mean */
    const double *places;        /* (PLACES,) from 0 to 1 */
    int64_t dim, used, none, groups, width, arms;
    double noise, wide, narrow;
    double prior, prior_variance, slope, slope_variance, group_shared, cell_shared, borrow, exploration_width;
    double alarm, allowance;
} State;

typedef struct {
    float *distances;
    int64_t *keys;
    double *n, *s, *all_n, *all_s, *some, *more;
    double *mean, *variance; /* (arms,) of each arm over all queries */
} Room;

/* numpy's sum of up to 128 numbers: eight sums of every eighth, in pairs, and then the rest. */
static double sum(const double *x, int64_t n) {
    double all = 0.0;
    int64_t i = 0;
    if (n >= 8) {
        double r[8];
        for (int j = 0; j < 8; j++) r[j] = x[j];
        for (i = 8; i < n - n % 8; i += 8)
            for (int j = 0; j < 8; j++) r[j] += x[i + j];
        all = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    }
    for (; i < n; i++) all += x[i];
    return all;
}

static double larger(double a, double b) { return a >= b || a != a ? a : b; }
static double smaller(double a, double b) { return a <= b || a != a ? a : b; }

/* Products of `many` queries with each centre, (many, used). Four of either are multiplied in one
 * pass over the other. The same loops for each processor; whole numbers have the same sum in any
 * order. */
#define DOTS(NAME, TARGET)                                                                        \
    TARGET static int32_t one_##NAME(const int16_t *a, const int16_t *b, int64_t dim) {           \
        int32_t all = 0;                                                                          \
        for (int64_t j = 0; j < dim; j++) all += (int32_t)a[j] * b[j];                            \
        return all;                                                                               \
    }                                                                                             \
    TARGET static inline void four_##NAME(const int16_t *a, const int16_t *b, int64_t dim,        \
                                          int32_t *products, int64_t step) {                      \
        const int16_t *b1 = b + dim, *b2 = b1 + dim, *b3 = b2 + dim;                              \
        int32_t p0 = 0, p1 = 0, p2 = 0, p3 = 0;                                                   \
        for (int64_t j = 0; j < dim; j++) {                                                       \
            int32_t x = a[j];                                                                     \
            p0 += x * b[j];                                                                       \
            p1 += x * b1[j];                                                                      \
            p2 += x * b2[j];                                                                      \
            p3 += x * b3[j];                                                                      \
        }                                                                                         \
        products[0] = p0;                                                                         \
        products[step] = p1;                                                                      \
        products[2 * step] = p2;                                                                  \
        products[3 * step] = p3;                                                                  \
    }                                                                                             \
    TARGET static void dots_##NAME(const int16_t *centres, int64_t used, int64_t dim,             \
                                   const int16_t *x, int64_t many, int32_t *products) {           \
        int64_t i = 0;                                                                            \
        for (; i + 4 <= many; i += 4)                                                             \
            for (int64_t c = 0; c < used; c++)                                                    \
                four_##NAME(centres + c * dim, x + i * dim, dim, products + i * used + c, used);  \
        for (; i < many; i++) {                                                                   \
            int64_t c = 0;                                                                        \
            for (; c + 4 <= used; c += 4)                                                         \
                four_##NAME(x + i * dim, centres + c * dim, dim, products + i * used + c, 1);     \
            for (; c < used; c++)                                                                 \
                products[i * used + c] = one_##NAME(x + i * dim, centres + c * dim, dim);         \
        }                                                                                         \
    }

DOTS(plain, )
#ifdef X86
DOTS(avx2, __attribute__((target("avx2"))))
DOTS(avx512, __attribute__((target("avx512bw,prefer-vector-width=512"))))
#endif

static void dots(const int16_t *centres, int64_t used, int64_t dim, const int16_t *x, int64_t many,
                 int32_t *products) {
#ifdef X86
    if (__builtin_cpu_supports("avx512bw")) {
        dots_avx512(centres, used, dim, x, many, products);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        dots_avx2(centres, used, dim, x, many, products);
        return;
    }
#endif
    dots_plain(centres, used, dim, x, many, products);
}

/* Whole steps of the features, and their squared length; it is negative where they are no finite
 * numbers, or too long for exact products. */
static float gridded(const float *features, int64_t dim, int16_t *x) {
    int inside = 1;
    float longest = 4096.0f / GRID;
    for (int64_t j = 0; j < dim; j++)
        inside &= (features[j] <= longest) & (features[j] >= -longest); /* no NaN is */
    if (!inside) return -1.0f;
    for (int64_t j = 0; j < dim; j++) x[j] = (int16_t)(features[j] * GRID + NEAREST - NEAREST);
    int64_t squared = 0;
    for (int64_t from = 0; from < dim; from += 64) { /* 64 squares are below 2^31 */
        int32_t some = 0;
        int64_t to = from + 64 < dim ? from + 64 : dim;
        for (int64_t j = from; j < to; j++) some += (int32_t)x[j] * x[j];
        squared += some;
    }
    return squared <= EXACT ? (float)squared : -1.0f;
}

/* The cell and the group of one query on the grid, and its distance from each cell less its own
 * squared length, from its products with the cells. */
static void find(const State *state, float own, const int32_t *products, float *distances,
                 int64_t *cell, int64_t *group) {
    int64_t used = state->used, near = 0;
    for (int64_t c = 0; c < used; c++)
        distances[c] = state->norms[c] - 2.0f * (float)products[c];
    for (int64_t c = 1; c < used; c++)
        if (distances[c] < distances[near]) near = c;
    *cell = near;
    *group = state->group[near];
    if (own == 0.0f) {
        *cell = state->none;
        *group = state->groups;
    } else if (used < state->none && (double)distances[near] + (double)own > SAME) {
        *cell = state->none;
    }
}

static double coin_of(double noise, double mean) {
    return noise * larger(mean * (1.0 - mean), LEAST_COIN);
}

/* (width,) sums of qualities, minus how much easier an arm's groups were.
 * room: (groups + 1) * (width + 3) + 2 * width numbers. */
static void ease(const State *state, double *eased, double *room) {
    int64_t width = state->width, groups = state->groups + 1;
    double coin = state->noise * COIN, k = coin / state->prior_variance;
    double *weights = room, *lack = weights + groups * width, *below = lack + groups;
    double *shared = below + groups, *each = shared + groups, *some = each + width;
    for (int64_t g = 0; g < groups; g++) {
        const double *n = state->group_n + g * width, *s = state->group_s + g * width;
        double *w = weights + g * width;
        for (int64_t j = 0; j < width; j++) {
            double weight = 1.0 / (state->wide * n[j] + coin);
            some[j] = s[j] * weight;
            w[j] = weight * n[j];
        }
        lack[g] = sum(some, width);
        below[g] = 1.0 / state->group_shared + sum(w, width);
    }
    for (int64_t j = 0; j < width; j++) {
        each[j] = 1.0 / (state->all_n[j] + k);
        eased[j] = state->all_s[j];
    }
    for (int round = 0; round < 2; round++) {
        for (int64_t j = 0; j < width; j++) eased[j] = (eased[j] + k * state->prior) * each[j];
        for (int64_t g = 0; g < groups; g++) {
            for (int64_t j = 0; j < width; j++) some[j] = weights[g * width + j] * eased[j];
            shared[g] = (lack[g] - sum(some, width)) / below[g];
        }
        for (int64_t j = 0; j < width; j++) {
            double all = shared[0] * state->group_n[j];
            for (int64_t g = 1; g < groups; g++) all += shared[g] * state->group_n[g * width + j];
            eased[j] = state->all_s[j] - all;
        }
    }
}

/* (arms,) mean and variance of each arm's quality over all queries; `some` and the three after it
 * have room for (arms,) each. */
static void over_all(const State *state, const double *eased, double *mean, double *variance,
                     double *w, double *wm, double *wp, double *wpp) {
    int64_t arms = state->arms;
    double known = state->noise * COIN / state->prior_variance;
    for (int64_t i = 0; i < arms; i++) {
        int64_t at = state->columns[i] < 0 ? state->width - 1 : state->columns[i];
        double n = state->all_n[at], s = eased[at], each = 1.0 / (n + known);
        w[i] = n * each;
        wm[i] = (s - state->prior * n) * each;
        wp[i] = w[i] * state->price[i];
        wpp[i] = wp[i] * state->price[i];
    }
    double ridge = state->prior_variance / state->slope_variance;
    double a00 = LINE + sum(w, arms), a01 = sum(wp, arms), a11 = ridge + sum(wpp, arms);
    double b0 = sum(wm, arms);
    for (int64_t i = 0; i < arms; i++) wp[i] = wm[i] * state->price[i];
    double b1 = state->slope * ridge + sum(wp, arms);
    double det = a00 * a11 - a01 * a01;
    double level = (a11 * b0 - a01 * b1) / det, slope = (a00 * b1 - a01 * b0) / det;
    for (int64_t i = 0; i < arms; i++) {
        int64_t at = state->columns[i] < 0 ? state->width - 1 : state->columns[i];
        double line = state->prior + level + slope * state->price[i];
        double noise = coin_of(state->noise, line), k = noise / state->prior_variance;
        double each = 1.0 / (state->all_n[at] + k);
        variance[i] = noise * each;
        mean[i] = (eased[at] + k * line) * each;
    }
}

/* One level down the tree: the arms' posterior above, and their counts in the cell. */
static void down(const State *state, double *m, double *v, const double *n, const double *s,
                 double h, double g, double *some, double *more) {
    int64_t arms = state->arms;
    double each[arms], one[arms];
    for (int64_t k = 0; k < arms; k++) {
        one[k] = coin_of(state->noise, m[k]);
        each[k] = 1.0 / (h * n[k] + one[k]);
        some[k] = (s[k] - m[k] * n[k]) * each[k];
        more[k] = n[k] * each[k];
    }
    double moved = sum(some, arms) / (1.0 / g + sum(more, arms));
    for (int64_t k = 0; k < arms; k++) {
        double mean = m[k] + moved, share = one[k] * each[k];
        m[k] = h * s[k] * each[k] + share * mean;
        v[k] = h * share + share * share * v[k];
    }
}

/* The outcomes of the nearest cells with those of the query's own, as `_borrowed.py` has it. */
static void borrow(const State *state, Room *room) {
    int64_t used = state->used, width = state->width, most = (int64_t)ceil(state->borrow), kept = 0;
    int64_t *keys = room->keys;
    double all = 0.0, before = 0.0, nearest = 0.0;
    if (most > used) most = used;
    for (int64_t c = 0; c < used; c++) {
        int64_t key = (int64_t)room->distances[c] * 4096 + c, at = kept;
        all += (double)room->distances[c];
        if (kept == most && key >= keys[most - 1]) continue;
        if (kept < most) kept++;
        else at--;
        for (; at > 0 && keys[at - 1] > key; at--) keys[at] = keys[at - 1];
        keys[at] = key;
    }
    for (int64_t j = 0; j < width; j++) room->all_n[j] = room->all_s[j] = 0.0;
    for (int64_t i = 0; i < kept; i++) {
        int64_t cell = keys[i] & 4095;
        const double *n = state->n + cell * width, *s = state->s + cell * width;
        double like = larger(all / (double)used - (double)(keys[i] >> 12), 0.0), outcomes = 0.0;
        if (i == 0) nearest = larger(like, 1.0);
        like /= nearest;
        for (int64_t j = 0; j < width; j++) outcomes += n[j];
        before += outcomes;
        double weight = (state->borrow + outcomes - before) / larger(outcomes, 0x1p-20);
        weight = smaller(larger(weight, 0.0), 1.0) * (like * like * like);
        weight = i == 0 ? 1.0 : rint(weight * 4096.0) / 4096.0;
        for (int64_t j = 0; j < width; j++) {
            room->all_n[j] += weight * n[j];
            room->all_s[j] += weight * s[j];
        }
    }
}

/* The posterior of each arm on one query. */
static void estimate(const State *state, float own, const int32_t *products, Room *room, double *m,
                     double *v) {
    int64_t width = state->width, arms = state->arms, cell, group;
    find(state, own, products, room->distances, &cell, &group);
    const double *n = state->group_n + group * width, *s = state->group_s + group * width;
    for (int64_t k = 0; k < arms; k++) {
        int64_t at = state->columns[k] < 0 ? width - 1 : state->columns[k];
        m[k] = room->mean[k];
        v[k] = room->variance[k];
        room->n[k] = n[at];
        room->s[k] = s[at];
    }
    down(state, m, v, room->n, room->s, state->wide, state->group_shared, room->some, room->more);
    n = state->n + cell * width;
    s = state->s + cell * width;
    if (state->borrow > 0.0 && group != state->groups) {
        double outcomes = 0.0;
        for (int64_t j = 0; j < width; j++) outcomes += n[j];
        if (outcomes < state->borrow) {
            borrow(state, room);
            n = room->all_n;
            s = room->all_s;
        }
    }
    for (int64_t k = 0; k < arms; k++) {
        int64_t at = state->columns[k] < 0 ? width - 1 : state->columns[k];
        room->n[k] = n[at];
        room->s[k] = s[at];
    }
    down(state, m, v, room->n, room->s, state->narrow, state->cell_shared, room->some, room->more);
}

/* Many queries: their features in whole steps, (many, dim), the squared length of each, and their
 * products with the cells, (many, used). */
typedef struct {
    int16_t *x;
    float *own;
    int32_t *products;
} Queries;

/* How many of the first queries have exact products, which are computed; -1 where memory is
 * wanting. Who calls it frees `products`. */
static int64_t placed(const State *state, const float *features, int64_t many, Queries *queries) {
    int64_t dim = state->dim, used = state->used, sound = 0;
    size_t each = (size_t)used * sizeof(int32_t) + sizeof(float) + (size_t)dim * sizeof(int16_t);
    queries->products = malloc((size_t)many * each + 1);
    if (!queries->products) return -1;
    queries->own = (float *)(queries->products + many * used);
    queries->x = (int16_t *)(queries->own + many);
    for (; sound < many; sound++) {
        float own = gridded(features + sound * dim, dim, queries->x + sound * dim);
        if (own < 0.0f) break;
        queries->own[sound] = own;
    }
    dots(state->centres, used, dim, queries->x, sound, queries->products);
    return sound;
}

/* The CRC-32 of this file, from hatch_build.py: a library of other source is not used. */
uint32_t nested_source(void) { return SOURCE; }

/* numpy's sum as it is here, to be compared with numpy's own. */
double nested_sum(const double *x, int64_t n) { return sum(x, n); }

/* Whether the features of many queries are finite and short enough for exact products; -1 where
 * memory is wanting. */
int nested_exact(const float *features, int64_t many, int64_t dim) {
    int16_t *x = malloc((size_t)dim * sizeof(int16_t));
    if (!x) return -1;
    int exact = 1;
    for (int64_t i = 0; i < many && exact; i++)
        exact = gridded(features + i * dim, dim, x) >= 0.0f;
    free(x);
    return exact;
}

/* How far an outcome is from what was expected, in standard deviations. */
static double surprise(const State *state, double quality, double n, double s, double group_n,
                       double group_s) {
    double k = state->noise * COIN / state->prior_variance;
    double m = (s + k * state->prior) / (n + k), v = state->noise * COIN / (n + k);
    k = coin_of(state->noise, m) / state->wide;
    double share = k / (group_n + k);
    m = (group_s + k * m) / (group_n + k);
    v = state->wide * share + share * share * v + state->narrow;
    return (quality - m) / sqrt(v + coin_of(state->noise, m));
}

/* Learns outcomes, four numbers each: which query it is of, the column of its arm, quality and
 * weight. They are in the order of the queries, and no query has two of one arm. Returns how many
 * queries it learned: it stops before one that needs a new cell, that has no exact products, or
 * whose outcome raises an alarm. -1 where memory is wanting; then it learned none. */
int64_t nested_learn(const State *state, const float *features, int64_t many, const double *told,
                     int64_t count) {
    int64_t width = state->width, none = state->none, dim = state->dim, cell, group, i = 0;
    Queries queries;
    many = placed(state, features, many, &queries);
    if (many < 0) return -1;
    float distances[state->used];
    for (const double *end = told + 4 * count; i < many; i++) {
        const int16_t *x = queries.x + i * dim;
        float own = queries.own[i];
        find(state, own, queries.products + i * state->used, distances, &cell, &group);
        if (own == 0.0f) cell = none + 1; /* the row of queries without features */
        if (cell == none) break;
        int alarmed = 0;
        const double *next = told;
        double ups[MOST], downs[MOST]; /* kept apart until none of them raises an alarm */
        for (int j = 0; next < end && next[0] == (double)i; next += 4, j++) {
            int64_t at = (int64_t)next[1];
            if (j == MOST) {
                alarmed = 1;
                break;
            }
            if (state->alarm <= 0.0 || next[3] != 1.0) continue;
            double n = state->all_n[at];
            double z = surprise(state, next[2], n, state->all_s[at],
                                state->group_n[group * width + at],
                                state->group_s[group * width + at]);
            ups[j] = larger(0.0, state->up[at] + z - state->allowance);
            downs[j] = larger(0.0, state->down[at] - z - state->allowance);
            alarmed |= larger(ups[j], downs[j]) > state->alarm && n > SEEN;
        }
        if (alarmed) break;
        if (cell < none) {
            int32_t *places = state->places_of + cell * dim;
            for (int64_t j = 0; j < dim; j++) places[j] += x[j];
            state->mass[cell]++;
        }
        for (int j = 0; told < next; told += 4, j++) {
            int64_t at = (int64_t)told[1];
            double quality = told[2], weight = told[3], worth = weight * quality;
            if (state->alarm > 0.0 && weight == 1.0) {
                state->up[at] = ups[j];
                state->down[at] = downs[j];
                state->since[at] += 1.0;
            }
            state->n[cell * width + at] += weight;
            state->s[cell * width + at] += worth;
            state->all_n[at] += weight;
            state->all_s[at] += worth;
            state->squares[at] += weight * (rint(quality * quality * TARGET) / TARGET);
            if (cell < none) {
                state->group_n[group * width + at] += weight;
                state->group_s[group * width + at] += worth;
            }
        }
    }
    free(queries.products);
    return i;
}

/* One round of k-means: the group of each of `used` cells, the one with the nearest middle, and each
 * middle to the mean of its cells by mass. Returns whether a cell came to another group; the middles
 * stay if not. -1 where memory is wanting, and -2 where products are not exact and numpy does it. */
int nested_round(const int16_t *cells, const int64_t *mass, int64_t used, int64_t dim,
                 int16_t *middles, int64_t count, int64_t *group) {
    size_t sums = (size_t)(count * dim + count) * sizeof(double);
    char *memory = malloc(sums + (size_t)(used + 1) * (size_t)count * sizeof(int32_t));
    if (!memory) return -1;
    double *sum_of = (double *)memory, *total = sum_of + count * dim;
    float *norms = (float *)(total + count);
    int32_t *products = (int32_t *)(norms + count);
    int changed = 0;
    for (int64_t i = 0; i < used + count; i++) {
        const int16_t *row = i < used ? cells + i * dim : middles + (i - used) * dim;
        int64_t squared = 0;
        for (int64_t j = 0; j < dim; j++) squared += (int32_t)row[j] * row[j];
        if (squared > EXACT) changed = -2;
        if (i >= used) norms[i - used] = (float)squared;
    }
    if (changed == 0) {
        dots(middles, count, dim, cells, used, products);
        for (int64_t i = 0; i < used; i++, products += count) {
            int64_t near = 0;
            for (int64_t c = 1; c < count; c++)
                if (norms[c] - 2.0f * (float)products[c] <
                    norms[near] - 2.0f * (float)products[near])
                    near = c;
            changed |= group[i] != near;
            group[i] = near;
        }
    }
    if (changed == 1) {
        for (int64_t j = 0; j < count * dim + count; j++) sum_of[j] = 0.0;
        for (int64_t i = 0; i < used; i++) {
            double *to = sum_of + group[i] * dim, heavy = (double)mass[i];
            for (int64_t j = 0; j < dim; j++) to[j] += heavy * cells[i * dim + j];
            total[group[i]] += heavy;
        }
        for (int64_t c = 0; c < count; c++)
            if (total[c] > 0.0)
                for (int64_t j = 0; j < dim; j++) {
                    double mean = sum_of[c * dim + j] / total[c];
                    middles[c * dim + j] = (int16_t)(mean + NEAREST_DOUBLE - NEAREST_DOUBLE);
                }
    }
    free(memory);
    return changed;
}

/* Fills `out` for many queries, one table after the other: scores, qualities, deviations and widths,
 * (many, arms) each; then z before tanh and the exponent, (many, PLACES, arms) each.
 *
 * cost: (many, arms), or (arms,) with a step of 0. worth: (many,). Returns 1 where numpy must do it,
 * since features are not finite or too long, and -1 where memory is wanting.
 */
int nested_begin(const State *state, const float *features, int64_t many, const double *cost,
                 int64_t step, const double *worth, double *out) {
    int64_t arms = state->arms, each = many * arms, used = state->used, width = state->width;
    double *scores = out, *quality = out + each, *deviation = out + 2 * each;
    double *widths = out + 3 * each, *z = out + 4 * each, *exponent = z + PLACES * each;
    int64_t easing = width + (state->groups + 1) * (width + 3) + 2 * width;
    size_t doubles = (size_t)(8 * arms + 2 * width + easing) * sizeof(double);
    char *memory = malloc(doubles + (size_t)used * (sizeof(int64_t) + sizeof(float)));
    if (!memory) return -1;
    Queries queries;
    int64_t sound = placed(state, features, many, &queries);
    if (sound < many) {
        free(memory);
        if (sound >= 0) free(queries.products);
        return sound < 0 ? -1 : 1;
    }
    Room room;
    double *m = (double *)memory, *v = m + arms;
    room.n = v + arms;
    room.s = room.n + arms;
    room.some = room.s + arms;
    room.more = room.some + arms;
    room.all_n = room.more + arms;
    room.all_s = room.all_n + width;
    room.mean = room.all_s + width;
    room.variance = room.mean + arms;
    double *eased = room.variance + arms;
    room.keys = (int64_t *)(eased + easing);
    room.distances = (float *)(room.keys + used);
    ease(state, eased, eased + width);
    over_all(state, eased, room.mean, room.variance, room.n, room.s, room.some, room.more);
    for (int64_t i = 0; i < many; i++) {
        estimate(state, queries.own[i], queries.products + i * used, &room, m, v);
        double low = -INFINITY, high = -INFINITY;
        for (int64_t k = 0; k < arms; k++) {
            int64_t at = i * arms + k;
            double net = m[k] - cost[i * step + k] / worth[i], off = sqrt(v[k]);
            double spread = larger(state->exploration_width * off, 1e-9), reach = 3.5 * spread;
            scores[at] = net + 0.0;
            quality[at] = smaller(larger(m[k], 0.0), 1.0);
            deviation[at] = off;
            widths[at] = spread;
            low = larger(low, scores[at] - reach);
            high = larger(high, scores[at] + reach);
        }
        for (int64_t place = 0; place < PLACES; place++) {
            double where = low + (high - low) * state->places[place];
            for (int64_t k = 0; k < arms; k++) {
                int64_t at = (i * PLACES + place) * arms + k;
                double far = (where - scores[i * arms + k]) / widths[i * arms + k];
                double squared = far * far;
                z[at] = far * (0.7978845608 + 0.0356774081 * squared);
                exponent[at] = squared * -0.5;
            }
        }
    }
    free(queries.products);
    free(memory);
    return 0;
}

/* (many, arms) the propensities, in the place of the widths, of z and the exponent after tanh and
 * exp. */
void nested_end(int64_t many, int64_t arms, double *out) {
    int64_t each = many * arms;
    double *widths = out + 3 * each, *z = out + 4 * each, *density = z + PLACES * each;
    for (int64_t i = 0; i < many; i++) {
        double p[arms];
        for (int64_t k = 0; k < arms; k++) p[k] = 0.0;
        for (int64_t place = 0; place < PLACES; place++) {
            int64_t at = (i * PLACES + place) * arms;
            double all = 1.0;
            for (int64_t k = 0; k < arms; k++) {
                double below = larger(z[at + k] * 0.5 + 0.5, 1e-9);
                density[at + k] /= below;
                all *= below;
            }
            for (int64_t k = 0; k < arms; k++) p[k] += density[at + k] * all;
        }
        for (int64_t k = 0; k < arms; k++) p[k] /= widths[i * arms + k];
        double total = sum(p, arms);
        for (int64_t k = 0; k < arms; k++) widths[i * arms + k] = p[k] / total;
    }
}
