/* What `nested` proposes, for some queries: the cells of each, the posterior of every arm, and the
 * integrand of P(the arm is the best) but for exp and tanh. Plain C without Python's headers, called
 * by policies/_native.py through ctypes.
 *
 * The bits are those of policies/nested.py, _borrowed.py and _explore.py by numpy: distances are
 * sums of whole numbers, exact in any order; all else is done by the same operations in the same
 * order, without contraction, and `sum` adds up as numpy's add.reduce does.
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
#define LEAST_COIN 0.03
#define PLACES 40
#define NEAREST 12582912.0f /* added and taken away again, it leaves the nearest whole number */

typedef struct {
    const int16_t *centres;         /* (none, dim) */
    const float *norms;             /* (used,) their squared lengths */
    const int64_t *group;           /* (none,) */
    const double *n, *s;            /* (none + 2, width) */
    const double *group_n, *group_s; /* (groups + 1, width) */
    const int64_t *columns;         /* (arms,) of each arm; negative for one never seen */
    const double *mean, *variance;  /* (arms,) of each arm over all queries */
    const double *places;           /* (PLACES,) from 0 to 1 */
    int64_t dim, used, none, groups, width, arms;
    double noise, wide, narrow, group_shared, cell_shared, borrow, kappa;
} State;

typedef struct {
    int16_t *x;
    int32_t *products;
    float *distances;
    int64_t *keys;
    double *n, *s, *all_n, *all_s, *some, *more;
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

/* The same loop for each processor; whole numbers have the same sum in any order. */
#define DOTS(NAME, TARGET)                                                                        \
    TARGET static void dots_##NAME(const int16_t *centres, int64_t used, int64_t dim,             \
                                   const int16_t *x, int32_t *products) {                         \
        for (int64_t c = 0; c < used; c++, centres += dim) {                                      \
            int32_t all = 0;                                                                      \
            for (int64_t j = 0; j < dim; j++) all += (int32_t)centres[j] * x[j];                  \
            products[c] = all;                                                                    \
        }                                                                                         \
    }

DOTS(plain, )
#ifdef X86
DOTS(avx2, __attribute__((target("avx2"))))
#endif

static void dots(const int16_t *centres, int64_t used, int64_t dim, const int16_t *x,
                 int32_t *products) {
#ifdef X86
    if (__builtin_cpu_supports("avx2")) {
        dots_avx2(centres, used, dim, x, products);
        return;
    }
#endif
    dots_plain(centres, used, dim, x, products);
}

/* Whole steps of the features, of which there are `grid` in 1, and their squared length; it is
 * negative where they are no finite numbers, or too long for exact products. */
static float gridded(const float *features, int64_t dim, float grid, int16_t *x) {
    int inside = 1;
    float longest = 4096.0f / grid;
    for (int64_t j = 0; j < dim; j++)
        inside &= (features[j] <= longest) & (features[j] >= -longest); /* no NaN is */
    if (!inside) return -1.0f;
    for (int64_t j = 0; j < dim; j++) x[j] = (int16_t)(features[j] * grid + NEAREST - NEAREST);
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
 * squared length. */
static void find(const State *state, float own, Room *room, int64_t *cell, int64_t *group) {
    int64_t used = state->used, near = 0;
    dots(state->centres, used, state->dim, room->x, room->products);
    for (int64_t c = 0; c < used; c++)
        room->distances[c] = state->norms[c] - 2.0f * (float)room->products[c];
    for (int64_t c = 1; c < used; c++)
        if (room->distances[c] < room->distances[near]) near = c;
    *cell = near;
    *group = state->group[near];
    if (own == 0.0f) {
        *cell = state->none;
        *group = state->groups;
    } else if (used < state->none && (double)room->distances[near] + (double)own > SAME) {
        *cell = state->none;
    }
}

/* One level down the tree: the arms' posterior above, and their counts in the cell. */
static void down(const State *state, double *m, double *v, const double *n, const double *s,
                 double h, double g, double *some, double *more) {
    int64_t arms = state->arms;
    double each[arms], one[arms];
    for (int64_t k = 0; k < arms; k++) {
        one[k] = state->noise * larger(m[k] * (1.0 - m[k]), LEAST_COIN);
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

/* The posterior of each arm on one query; 1 where it needs numpy. */
static int estimate(const State *state, const float *features, Room *room, double *m, double *v) {
    int64_t width = state->width, arms = state->arms, cell, group;
    float own = gridded(features, state->dim, GRID, room->x);
    if (own < 0.0f) return 1;
    find(state, own, room, &cell, &group);
    const double *n = state->group_n + group * width, *s = state->group_s + group * width;
    for (int64_t k = 0; k < arms; k++) {
        int64_t at = state->columns[k] < 0 ? width - 1 : state->columns[k];
        m[k] = state->mean[k];
        v[k] = state->variance[k];
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
    return 0;
}

/* The CRC-32 of this file, from hatch_build.py: a library of other source is not used. */
uint32_t nested_source(void) { return SOURCE; }

/* numpy's sum as it is here, to be compared with numpy's own. */
double nested_sum(const double *x, int64_t n) { return sum(x, n); }

/* The cell and the group of many queries on the grid. Returns 1 where numpy must do it, since one is
 * too long for exact products, and -1 where memory is wanting. */
int nested_find(const State *state, const float *x, int64_t many, int64_t *found) {
    int64_t used = state->used;
    Room room;
    room.products = malloc((size_t)used * (sizeof(int32_t) + sizeof(float)) +
                           (size_t)state->dim * sizeof(int16_t));
    if (!room.products) return -1;
    room.distances = (float *)(room.products + used);
    room.x = (int16_t *)(room.distances + used);
    int failed = 0;
    for (int64_t i = 0; i < many && !failed; i++) {
        float own = gridded(x + i * state->dim, state->dim, 1.0f, room.x);
        if (own < 0.0f)
            failed = 1;
        else
            find(state, own, &room, found + i, found + many + i);
    }
    free(room.products);
    return failed;
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
    size_t doubles = (size_t)(6 * arms + 2 * width) * sizeof(double);
    size_t longs = (size_t)used * (sizeof(int64_t) + sizeof(int32_t) + sizeof(float));
    char *memory = malloc(doubles + longs + (size_t)state->dim * sizeof(int16_t));
    if (!memory) return -1;
    Room room;
    double *m = (double *)memory, *v = m + arms;
    room.n = v + arms;
    room.s = room.n + arms;
    room.some = room.s + arms;
    room.more = room.some + arms;
    room.all_n = room.more + arms;
    room.all_s = room.all_n + width;
    room.keys = (int64_t *)(room.all_s + width);
    room.products = (int32_t *)(room.keys + used);
    room.distances = (float *)(room.products + used);
    room.x = (int16_t *)(room.distances + used);
    int failed = 0;
    for (int64_t i = 0; i < many; i++) {
        failed = estimate(state, features + i * state->dim, &room, m, v);
        if (failed) break;
        double low = -INFINITY, high = -INFINITY;
        for (int64_t k = 0; k < arms; k++) {
            int64_t at = i * arms + k;
            double net = m[k] - cost[i * step + k] / worth[i], off = sqrt(v[k]);
            double spread = larger(state->kappa * off, 1e-9), reach = 3.5 * spread;
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
    free(memory);
    return failed;
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
