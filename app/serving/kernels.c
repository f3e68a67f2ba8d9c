/* The inner loops of serving: cells from values, scores from cells.
 *
 * A Scorer is a fitted pipeline laid flat: steps that prepare the features of a row, then a linear model or
 * trees, then a link to probabilities. A row is computed in one order of operations, whether it comes
 * alone or in a batch, so its answer is the same bit for bit; build with -ffp-contract=off, lest a compiler
 * fuses a multiplication and an addition in one of two places.
 *
 * The arrays are copied and every index in them is checked when a Scorer is made. Whatever they hold, no
 * walk leaves them, and each walk ends, as a tree's children stand behind their parent.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---------------------------------------------------------------- the flattened pipeline */

/* What a step makes of one column, and the numbers that it takes for it. */
enum { VALUE, MISSING, TIME, ONE_HOT, CURVE, LOOKUP, PRODUCT, STEP_KINDS };
enum {
    VALUE_NUMBERS = 3,                 /* what stands for null, mean, scale */
    MISSING_NUMBERS = 2,               /* mean, scale */
    SCALE_NUMBERS = 4,                 /* what is subtracted, divided by, multiplied by, added */
    TIME_NUMBERS = 2 + SCALE_NUMBERS,  /* the part, what stands for null, its scale; for each part */
    CURVE_NUMBERS = 4 + SCALE_NUMBERS, /* what stands for null, least, greatest, lambda or NaN, scale */
};

enum { YEAR, QUARTER, MONTH, WEEK, DAY, DAY_OF_YEAR, WEEKDAY, HOUR, MINUTE, ELAPSED, TIME_PARTS };

typedef struct {
    int32_t kind;
    int32_t column;  /* the cell it reads; PRODUCT: any */
    int32_t feature; /* the first feature it writes */
    int32_t at;      /* where its numbers begin; ONE_HOT: its places; PRODUCT: a feature */
    int32_t size;    /* TIME: how many parts; ONE_HOT, LOOKUP: places or numbers; PRODUCT: the other feature */
} Step;

enum { IDENTITY, LOGISTIC, SOFTMAX, SIGMOIDS, LINKS };

/* A split sends a value that is at most the threshold to node `left`, a greater one to the node behind it.
 * A leaf's threshold is its value, or the number of its row among the leaves, and its `left` is itself:
 * a walk that goes on after its end stays there. */
typedef struct {
    double threshold;
    uint32_t feature; /* feature << 2 | (a missing value goes left) << 1 | (it is a split) */
    uint32_t left;
} Node;

enum { SPLIT = 1, MISSING_LEFT = 2, FEATURE_SHIFT = 2 };

/* So many walks go side by side: the processor overlaps what each waits for. */
enum { LANES = 8 };

/* Prepared rows that are walked through one tree after the other stay within the cache. */
enum { BLOCK_BYTES = 1 << 16, MAX_BLOCK_ROWS = 256 };

/* A row's work space up to so many numbers is on the C stack. */
enum { STACK_NUMBERS = 1024 };

typedef struct {
    PyObject_HEAD
    Py_ssize_t columns, features, scores, outputs, width;
    Py_ssize_t step_count, number_count, place_count, tree_count, node_count, leaf_count;
    Step *steps;
    double *numbers;
    int32_t *places;
    double bound;
    double *weights; /* linear: (features, scores); NULL for trees */
    char adds_steps; /* linear: see `can_add_steps` */
    double *initial; /* (scores,): linear: intercepts; trees: what the sums begin with */
    Node *nodes;
    uint32_t *roots;
    double *leaves; /* (leaf_count, scores); NULL: tree t adds its leaf's value to score t % scores */
    double divisor;
    int single; /* trees: features are rounded to float32 first */
    int link;
    double *sigmoids; /* (scores, 2): slope and intercept */
    int32_t *classes; /* (outputs,): where each output goes among `width` */
} Scorer;

/* ---------------------------------------------------------------- preparing a row */

static inline double held(double value, double bound)
{
    return value < -bound ? -bound : value > bound ? bound : value; /* NaN stays */
}

static inline double standard(double value, const double *mean_scale, double bound)
{
    return held((value - mean_scale[0]) / mean_scale[1], bound);
}

static inline double scaled(double value, const double *scale, double bound)
{
    return held((value - scale[0]) / scale[1] * scale[2] + scale[3], bound);
}

/* What no power of a float64 leaves: its standard score, and products of these, stay finite. */
#define LARGEST_POWER 1e100

/* I.-K. Yeo and R. A. Johnson, A new family of power transformations to improve normality or symmetry,
 * Biometrika 87, 2000; in the form of scipy.stats.yeojohnson, which loses no digits about 0. */
static double powered(double value, double lambda)
{
    double power = value >= 0.0 ? lambda : 2.0 - lambda, grown = log1p(fabs(value));
    if (fabs(power) >= DBL_EPSILON)
        grown = expm1(power * grown) / power;
    return held(value >= 0.0 ? grown : -grown, LARGEST_POWER);
}

static inline int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

static inline int64_t days_of(int64_t year)
{
    return 365 + (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
}

/* UTC calendar parts of seconds since 1970 in the proleptic Gregorian calendar.
 * Howard Hinnant, chrono-compatible low-level date algorithms, civil_from_days. */
static void split_time(double seconds, double parts[TIME_PARTS])
{
    int64_t whole = (int64_t)floor(held(seconds, 1e15)); /* 30 million years fit an int64 */
    int64_t days = floor_div(whole, 86400);
    int64_t since = days + 719468; /* from 0000-03-01: leap days come last in a year */
    int64_t era = floor_div(since, 146097);
    int64_t of_era = since - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t from_march = of_era - (365 * year + year / 4 - year / 100);
    int64_t march_month = (5 * from_march + 2) / 153;
    int64_t month = march_month < 10 ? march_month + 3 : march_month - 9;
    int64_t weekday = days + 3 - floor_div(days + 3, 7) * 7; /* 1970-01-01 was a Thursday */
    year += era * 400 + (march_month >= 10);
    int64_t of_year = from_march - 306 + (march_month < 10 ? days_of(year) : 0);
    int64_t thursday = of_year + 3 - weekday; /* a week of ISO 8601 belongs to the year of its Thursday */
    if (thursday < 0)
        thursday += days_of(year - 1);
    else if (thursday >= days_of(year))
        thursday -= days_of(year);
    parts[YEAR] = (double)year;
    parts[QUARTER] = (double)((month + 2) / 3);
    parts[MONTH] = (double)month;
    parts[WEEK] = (double)(thursday / 7 + 1);
    parts[DAY] = (double)(from_march - (153 * march_month + 2) / 5 + 1);
    parts[DAY_OF_YEAR] = (double)(of_year + 1);
    parts[WEEKDAY] = (double)weekday;
    parts[HOUR] = (double)(floor_div(whole, 3600) - days * 24);
    parts[MINUTE] = (double)(floor_div(whole, 60) - floor_div(whole, 3600) * 60);
    parts[ELAPSED] = seconds / 86400.0;
}

/* The place of a code in a table of null, any other category, and the categories 0, 1, … */
static inline int32_t place_of(double code, int32_t size)
{
    return isnan(code) ? 0 : code >= 0.0 && code < size - 2 ? 2 + (int32_t)code : 1;
}

static inline double cell_at(const char *cells, int32_t column)
{
    double cell;
    memcpy(&cell, cells + column * sizeof(double), sizeof cell); /* bytes need not be aligned */
    return cell;
}

/* The feature that VALUE, MISSING, CURVE and LOOKUP make of a cell. */
static inline double feature_of(const Scorer *self, const Step *step, double cell)
{
    const double *numbers = self->numbers + step->at;
    switch (step->kind) {
    case VALUE:
        return standard(isnan(cell) ? numbers[0] : cell, numbers + 1, self->bound);
    case MISSING:
        return standard(isnan(cell) ? 1.0 : 0.0, numbers, self->bound);
    case LOOKUP:
        return held(numbers[place_of(cell, step->size)], self->bound);
    }
    double value = isnan(cell) ? numbers[0] : cell;
    value = value < numbers[1] ? numbers[1] : value > numbers[2] ? numbers[2] : value;
    if (!isnan(numbers[3]))
        value = powered(value, numbers[3]);
    return scaled(value, numbers + 4, self->bound);
}

/* The features that TIME makes. */
static void time_features(const Scorer *self, const Step *step, double cell, double *features)
{
    const double *numbers = self->numbers + step->at;
    double parts[TIME_PARTS];
    if (!isnan(cell))
        split_time(cell, parts);
    for (int part = 0; part < step->size; part++, numbers += TIME_NUMBERS)
        features[part] = scaled(isnan(cell) ? numbers[1] : parts[(int)numbers[0]], numbers + 2, self->bound);
}

/* The feature, from the first, that ONE_HOT makes 1, or -1 for none. */
static inline int32_t hot_of(const Scorer *self, const Step *step, double cell)
{
    return self->places[step->at + place_of(cell, step->size)];
}

static void prepare(const Scorer *self, const char *cells, double *features)
{
    memset(features, 0, self->features * sizeof(double));
    for (Py_ssize_t number = 0; number < self->step_count; number++) {
        const Step *step = &self->steps[number];
        double *feature = features + step->feature, cell = cell_at(cells, step->column);
        if (step->kind == ONE_HOT) {
            int32_t place = hot_of(self, step, cell);
            if (place >= 0)
                feature[place] = 1.0;
        } else if (step->kind == TIME) {
            time_features(self, step, cell, feature);
        } else if (step->kind == PRODUCT) {
            *feature = features[step->at] * features[step->size];
        } else {
            *feature = feature_of(self, step, cell);
        }
    }
    if (self->single)
        for (Py_ssize_t position = 0; position < self->features; position++)
            features[position] = (float)features[position];
}

/* ---------------------------------------------------------------- scores */

static void score_linear(const Scorer *self, const double *features, double *scores)
{
    const double *weight = self->weights;
    memset(scores, 0, self->scores * sizeof(double));
    for (Py_ssize_t position = 0; position < self->features; position++)
        for (Py_ssize_t score = 0; score < self->scores; score++)
            scores[score] += features[position] * *weight++;
    for (Py_ssize_t score = 0; score < self->scores; score++)
        scores[score] += self->initial[score];
}

/* A block of rows. Of one score, several rows' sums go side by side: a sum waits for its last addition. */
static void score_linear_block(const Scorer *self, const double *features, Py_ssize_t rows, double *scores)
{
    Py_ssize_t row = 0;
    for (; self->scores == 1 && row + LANES <= rows; row += LANES) {
        const double *first = features + row * self->features;
        double sums[LANES] = {0};
        for (Py_ssize_t position = 0; position < self->features; position++)
#pragma GCC unroll 8
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += first[lane * self->features + position] * self->weights[position];
        for (int lane = 0; lane < LANES; lane++)
            scores[row + lane] = sums[lane] + self->initial[0];
    }
    for (; row < rows; row++)
        score_linear(self, features + row * self->features, scores + row * self->scores);
}

/* Whether one score can be summed up step by step: the steps make the features in their order, so that the
 * terms are added in that of `score_linear`, and what is left out is 0 times a finite weight. */
static int can_add_steps(const Scorer *self)
{
    int64_t next = 0;
    if (self->weights == NULL || self->scores != 1 || self->single)
        return 0;
    for (Py_ssize_t position = 0; position < self->features; position++)
        if (!isfinite(self->weights[position]))
            return 0;
    for (Py_ssize_t number = 0; number < self->step_count; number++) {
        const Step *step = &self->steps[number];
        if (step->kind == PRODUCT || step->feature < next || (step->kind == TIME && step->size > TIME_PARTS))
            return 0;
        int64_t features = step->kind == TIME ? step->size : 1;
        for (int32_t place = 0; step->kind == ONE_HOT && place < step->size; place++)
            features = Py_MAX(features, (int64_t)self->places[step->at + place] + 1);
        next = step->feature + features;
    }
    return 1;
}

/* Linear scores of a block of rows without their features: of a one-hot column all but one are 0. */
static void add_steps(const Scorer *self, const char *cells, Py_ssize_t rows, double *scores)
{
    const size_t width = self->columns * sizeof(double);
    for (Py_ssize_t row = 0; row < rows; row++)
        scores[row] = 0.0;
    for (Py_ssize_t number = 0; number < self->step_count; number++) {
        const Step *step = &self->steps[number];
        const double *weight = self->weights + step->feature, *numbers = self->numbers + step->at;
        switch (step->kind) {
        case VALUE:
            for (Py_ssize_t row = 0; row < rows; row++) {
                double cell = cell_at(cells + row * width, step->column);
                scores[row] += standard(isnan(cell) ? numbers[0] : cell, numbers + 1, self->bound) * *weight;
            }
            break;
        case MISSING: {
            double terms[2];
            for (int missing = 0; missing < 2; missing++)
                terms[missing] = standard(missing, numbers, self->bound) * *weight;
            for (Py_ssize_t row = 0; row < rows; row++)
                scores[row] += terms[isnan(cell_at(cells + row * width, step->column)) != 0];
            break;
        }
        case ONE_HOT:
            for (Py_ssize_t row = 0; row < rows; row++) {
                int32_t hot = hot_of(self, step, cell_at(cells + row * width, step->column));
                if (hot >= 0)
                    scores[row] += weight[hot];
            }
            break;
        case TIME:
            for (Py_ssize_t row = 0; row < rows; row++) {
                double parts[TIME_PARTS];
                time_features(self, step, cell_at(cells + row * width, step->column), parts);
                for (int part = 0; part < step->size; part++)
                    scores[row] += parts[part] * weight[part];
            }
            break;
        default:
            for (Py_ssize_t row = 0; row < rows; row++)
                scores[row] += feature_of(self, step, cell_at(cells + row * width, step->column)) * *weight;
        }
    }
    for (Py_ssize_t row = 0; row < rows; row++)
        scores[row] += self->initial[0];
}

/* Walk from each node of `at` to its leaf, each by features of its own. Both ways' choice is arithmetic:
 * a branch would be mispredicted every other time. */
static inline void walk(const Node *nodes, uint32_t at[LANES], const double *const features[LANES])
{
    uint32_t moving;
    do {
        moving = 0;
#pragma GCC unroll 8
        for (int lane = 0; lane < LANES; lane++) {
            const Node *node = &nodes[at[lane]];
            double value = features[lane][node->feature >> FEATURE_SHIFT];
            uint32_t left = (uint32_t)(value <= node->threshold)
                            | ((uint32_t)(value != value) & (node->feature / MISSING_LEFT));
            uint32_t split = node->feature & SPLIT;
            at[lane] = node->left + (split & ~left);
            moving |= split;
        }
    } while (moving);
}

static inline void add_leaf(const Scorer *self, Py_ssize_t tree, uint32_t leaf, double *scores)
{
    double value = self->nodes[leaf].threshold;
    if (self->leaves == NULL) {
        scores[tree % self->scores] += value;
    } else {
        const double *values = self->leaves + (Py_ssize_t)value * self->scores;
        for (Py_ssize_t score = 0; score < self->scores; score++)
            scores[score] += values[score];
    }
}

static inline void begin_sums(const Scorer *self, double *scores)
{
    memcpy(scores, self->initial, self->scores * sizeof(double));
}

static inline void end_sums(const Scorer *self, double *scores)
{
    for (Py_ssize_t score = 0; score < self->scores; score++)
        scores[score] /= self->divisor;
}

/* One row: several trees side by side, their leaves added in the order of the trees. */
static void score_trees(const Scorer *self, const double *features, double *scores)
{
    const double *same[LANES];
    for (int lane = 0; lane < LANES; lane++)
        same[lane] = features;
    begin_sums(self, scores);
    for (Py_ssize_t tree = 0; tree < self->tree_count; tree += LANES) {
        uint32_t at[LANES];
        Py_ssize_t count = Py_MIN(self->tree_count - tree, LANES);
        for (int lane = 0; lane < LANES; lane++)
            at[lane] = self->roots[tree + Py_MIN(lane, count - 1)];
        walk(self->nodes, at, same);
        for (int lane = 0; lane < count; lane++)
            add_leaf(self, tree + lane, at[lane], scores);
    }
    end_sums(self, scores);
}

/* A block of rows: one tree after the other, several rows side by side. */
static void score_block(const Scorer *self, const double *features, Py_ssize_t rows, double *scores)
{
    for (Py_ssize_t row = 0; row < rows; row++)
        begin_sums(self, scores + row * self->scores);
    for (Py_ssize_t tree = 0; tree < self->tree_count; tree++) {
        for (Py_ssize_t row = 0; row < rows; row += LANES) {
            uint32_t at[LANES];
            const double *each[LANES];
            Py_ssize_t count = Py_MIN(rows - row, LANES);
            for (int lane = 0; lane < LANES; lane++) {
                at[lane] = self->roots[tree];
                each[lane] = features + (row + Py_MIN(lane, count - 1)) * self->features;
            }
            walk(self->nodes, at, each);
            for (int lane = 0; lane < count; lane++)
                add_leaf(self, tree, at[lane], scores + (row + lane) * self->scores);
        }
    }
    for (Py_ssize_t row = 0; row < rows; row++)
        end_sums(self, scores + row * self->scores);
}

/* ---------------------------------------------------------------- from scores to the answer */

static inline double logistic(double score)
{
    return 1.0 / (1.0 + exp(-score));
}

static void both(double positive, double probabilities[2])
{
    probabilities[0] = 1.0 - positive;
    probabilities[1] = positive;
}

/* Divide by the sum; where that is zero, each gets the same share. */
static void normalise(double *shares, Py_ssize_t count)
{
    double sum = 0.0;
    for (Py_ssize_t place = 0; place < count; place++)
        sum += shares[place];
    for (Py_ssize_t place = 0; place < count; place++)
        shares[place] = sum != 0.0 ? shares[place] / sum : 1.0 / (double)count;
}

/* `outputs` has room for max(scores, 2). */
static void answer(const Scorer *self, const double *scores, double *outputs, double *row)
{
    switch (self->link) {
    case IDENTITY:
        memcpy(outputs, scores, self->scores * sizeof(double));
        break;
    case LOGISTIC:
        both(logistic(scores[0]), outputs);
        break;
    case SOFTMAX: {
        double greatest = scores[0];
        for (Py_ssize_t score = 1; score < self->scores; score++)
            greatest = Py_MAX(greatest, scores[score]);
        for (Py_ssize_t score = 0; score < self->scores; score++)
            outputs[score] = exp(scores[score] - greatest);
        normalise(outputs, self->scores);
        break;
    }
    case SIGMOIDS:
        for (Py_ssize_t score = 0; score < self->scores; score++)
            outputs[score] = logistic(self->sigmoids[2 * score] * scores[score] + self->sigmoids[2 * score + 1]);
        if (self->scores == 1)
            both(outputs[0], outputs);
        else
            normalise(outputs, self->scores);
        break;
    }
    memset(row, 0, self->width * sizeof(double)); /* a class without an output has the probability 0 */
    for (Py_ssize_t output = 0; output < self->outputs; output++)
        row[self->classes[output]] = outputs[output];
}

/* ---------------------------------------------------------------- making a Scorer */

static int refuse(const char *what)
{
    PyErr_Format(PyExc_ValueError, "not a sound scorer: %s", what);
    return -1;
}

/* A copy of an array, or NULL with an exception; `count` gets its number of elements. */
static void *copied(const Py_buffer *array, size_t element, Py_ssize_t *count)
{
    if (array->len % (Py_ssize_t)element) {
        refuse("an array ends within an element");
        return NULL;
    }
    void *copy = PyMem_Malloc(array->len ? array->len : 1);
    if (copy == NULL)
        return PyErr_NoMemory();
    if (array->len)
        memcpy(copy, array->buf, array->len);
    *count = array->len / (Py_ssize_t)element;
    return copy;
}

/* Whether [at, at + size) lies within [0, count). */
static inline int within(int64_t at, int64_t size, int64_t count)
{
    return at >= 0 && size >= 0 && at + size <= count;
}

static int check_steps(const Scorer *self)
{
    for (Py_ssize_t number = 0; number < self->step_count; number++) {
        const Step *step = &self->steps[number];
        if (step->kind < 0 || step->kind >= STEP_KINDS)
            return refuse("a step of an unknown kind");
        if (!within(step->column, 1, self->columns))
            return refuse("a step reads a column that is not there");
        int64_t features = 1, numbers = 0;
        switch (step->kind) {
        case VALUE:
            numbers = VALUE_NUMBERS;
            break;
        case MISSING:
            numbers = MISSING_NUMBERS;
            break;
        case CURVE:
            numbers = CURVE_NUMBERS;
            break;
        case TIME:
            features = step->size;
            numbers = features < 1 ? -1 : features * TIME_NUMBERS;
            break;
        case LOOKUP:
            numbers = step->size < 2 ? -1 : step->size;
            break;
        case ONE_HOT:
            features = 0;
            if (step->size < 2 || !within(step->at, step->size, self->place_count))
                return refuse("a step's places are not there");
            for (int64_t place = step->at; place < (int64_t)step->at + step->size; place++)
                if (self->places[place] < -1
                    || (self->places[place] >= 0
                        && !within((int64_t)step->feature + self->places[place], 1, self->features)))
                    return refuse("a category's feature is not there");
            break;
        case PRODUCT:
            if (!within(step->at, 1, self->features) || !within(step->size, 1, self->features))
                return refuse("a factor is not there");
            break;
        }
        if (step->kind != ONE_HOT && step->kind != PRODUCT && !within(step->at, numbers, self->number_count))
            return refuse("a step's numbers are not there");
        if (!within(step->feature, features, self->features))
            return refuse("a step's feature is not there");
        for (int64_t part = 0; step->kind == TIME && part < step->size; part++) {
            double which = self->numbers[step->at + part * TIME_NUMBERS];
            if (!(which >= 0 && which < TIME_PARTS))
                return refuse("a time has no such part");
        }
    }
    return 0;
}

static int check_trees(const Scorer *self)
{
    for (Py_ssize_t tree = 0; tree < self->tree_count; tree++) {
        int64_t root = self->roots[tree];
        int64_t end = tree + 1 < self->tree_count ? self->roots[tree + 1] : self->node_count;
        if (!within(root, 1, end) || end > self->node_count)
            return refuse("the roots are not in order");
        for (int64_t place = root; place < end; place++) {
            const Node *node = &self->nodes[place];
            if (!within(node->feature >> FEATURE_SHIFT, 1, self->features))
                return refuse("a node looks at a feature that is not there");
            if (node->feature & SPLIT) {
                if (node->left <= place || !within(node->left, 2, end))
                    return refuse("a node's children are not behind it, in its tree");
            } else if (node->left != place) {
                return refuse("a leaf leads elsewhere");
            } else if (self->leaves != NULL
                       && !(node->threshold >= 0 && node->threshold < (double)self->leaf_count)) {
                return refuse("a leaf's values are not there");
            }
        }
    }
    return 0;
}

static int check(Scorer *self, Py_ssize_t initial, Py_ssize_t weights, Py_ssize_t leaves, Py_ssize_t sigmoids)
{
    const Py_ssize_t most = INT32_MAX / 4; /* what a node can number, and no product of two overflows */
    if (self->columns < 0 || self->columns > most || self->features < 0 || self->features > most
        || self->width < 1 || self->width > most || initial < 1 || initial > most)
        return refuse("a size is out of range");
    self->scores = initial;
    if (self->node_count > UINT32_MAX)
        return refuse("too many nodes");
    if (self->weights != NULL && weights != self->features * self->scores)
        return refuse("not one weight for each feature and score");
    if (self->leaves != NULL && leaves % self->scores)
        return refuse("a leaf without a value for each score");
    self->leaf_count = leaves / self->scores;
    if (self->link < 0 || self->link >= LINKS)
        return refuse("an unknown link");
    if (self->link == LOGISTIC && self->scores != 1)
        return refuse("the logistic link takes one score");
    if (self->link == SIGMOIDS && sigmoids != 2 * self->scores)
        return refuse("not one sigmoid for each score");
    int two = self->link == LOGISTIC || (self->link == SIGMOIDS && self->scores == 1);
    if (self->outputs != (two ? 2 : self->scores))
        return refuse("not one class for each output");
    for (Py_ssize_t output = 0; output < self->outputs; output++)
        if (!within(self->classes[output], 1, self->width))
            return refuse("an output's class is not there");
    if (check_steps(self) < 0 || check_trees(self) < 0)
        return -1;
    self->adds_steps = can_add_steps(self);
    return 0;
}

static void scorer_dealloc(Scorer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(self->steps);
    PyMem_Free(self->numbers);
    PyMem_Free(self->places);
    PyMem_Free(self->weights);
    PyMem_Free(self->initial);
    PyMem_Free(self->nodes);
    PyMem_Free(self->roots);
    PyMem_Free(self->leaves);
    PyMem_Free(self->sigmoids);
    PyMem_Free(self->classes);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *scorer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"columns", "features", "width", "steps", "numbers", "places", "bound",
                            "weights", "initial", "nodes", "roots", "leaves", "divisor", "single",
                            "link", "sigmoids", "classes", NULL};
    enum { STEPS, NUMBERS, PLACES, WEIGHTS, INITIAL, NODES, ROOTS, LEAVES, SIGMOIDS_, CLASSES, ARRAYS };
    Py_buffer arrays[ARRAYS] = {{0}};
    Scorer *self = (Scorer *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    int sound = 0;
    if (PyArg_ParseTupleAndKeywords(
            args, kwargs, "$nnny*y*y*dz*y*z*z*z*dpiz*y*", names, &self->columns, &self->features, &self->width,
            &arrays[STEPS], &arrays[NUMBERS], &arrays[PLACES], &self->bound, &arrays[WEIGHTS],
            &arrays[INITIAL], &arrays[NODES], &arrays[ROOTS], &arrays[LEAVES], &self->divisor, &self->single,
            &self->link, &arrays[SIGMOIDS_], &arrays[CLASSES])) {
        Py_ssize_t initial, weights = 0, leaves = 0, sigmoids;
        sound = (self->steps = copied(&arrays[STEPS], sizeof(Step), &self->step_count))
                && (self->numbers = copied(&arrays[NUMBERS], sizeof(double), &self->number_count))
                && (self->places = copied(&arrays[PLACES], sizeof(int32_t), &self->place_count))
                && (self->initial = copied(&arrays[INITIAL], sizeof(double), &initial))
                && (self->nodes = copied(&arrays[NODES], sizeof(Node), &self->node_count))
                && (self->roots = copied(&arrays[ROOTS], sizeof(uint32_t), &self->tree_count))
                && (self->sigmoids = copied(&arrays[SIGMOIDS_], sizeof(double), &sigmoids))
                && (self->classes = copied(&arrays[CLASSES], sizeof(int32_t), &self->outputs))
                && (arrays[WEIGHTS].obj == NULL
                    || (self->weights = copied(&arrays[WEIGHTS], sizeof(double), &weights)))
                && (arrays[LEAVES].obj == NULL
                    || (self->leaves = copied(&arrays[LEAVES], sizeof(double), &leaves)))
                && check(self, initial, weights, leaves, sigmoids) == 0;
    }
    for (int array = 0; array < ARRAYS; array++)
        PyBuffer_Release(&arrays[array]);
    if (!sound)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* ---------------------------------------------------------------- scoring */

static PyObject *tuple_of(const double *numbers, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t place = 0; tuple != NULL && place < count; place++) {
        PyObject *number = PyFloat_FromDouble(numbers[place]);
        if (number == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, place, number);
    }
    return tuple;
}

PyDoc_STRVAR(row_doc, "row($self, cells, /)\n--\n\n"
                      "The answer for one row of float64 cells in a bytes-like object, as a tuple of floats.");

static PyObject *scorer_row(Scorer *self, PyObject *cells)
{
    Py_buffer given;
    if (PyObject_GetBuffer(cells, &given, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *result = NULL;
    double on_stack[STACK_NUMBERS], *space = on_stack;
    Py_ssize_t outputs = Py_MAX(self->scores, 2);
    Py_ssize_t needed = self->features + self->scores + outputs + self->width;
    if (given.len != self->columns * (Py_ssize_t)sizeof(double)) {
        PyErr_Format(PyExc_ValueError, "a row has %zd bytes, not %zd: a float64 for each of %zd columns",
                     self->columns * (Py_ssize_t)sizeof(double), given.len, self->columns);
    } else if (needed > STACK_NUMBERS && (space = PyMem_New(double, needed)) == NULL) {
        PyErr_NoMemory();
    } else {
        double *features = space, *scores = features + self->features, *output = scores + self->scores,
               *row = output + outputs;
        if (self->adds_steps) {
            add_steps(self, given.buf, 1, scores);
        } else {
            prepare(self, given.buf, features);
            if (self->weights != NULL)
                score_linear(self, features, scores);
            else
                score_trees(self, features, scores);
        }
        answer(self, scores, output, row);
        result = tuple_of(row, self->width);
    }
    if (space != on_stack)
        PyMem_Free(space);
    PyBuffer_Release(&given);
    return result;
}

enum { ANSWERS, SCORES, FEATURES };

static void run(const Scorer *self, const char *cells, Py_ssize_t rows, Py_ssize_t block, double *space,
                int wanted, double *out)
{
    double *features = space, *scores = features + block * self->features,
           *outputs = scores + block * self->scores;
    for (Py_ssize_t first = 0; first < rows; first += block) {
        Py_ssize_t count = Py_MIN(block, rows - first);
        if (self->adds_steps && wanted != FEATURES) {
            add_steps(self, cells, count, scores);
        } else {
            for (Py_ssize_t row = 0; row < count; row++)
                prepare(self, cells + row * self->columns * sizeof(double), features + row * self->features);
            if (wanted != FEATURES && self->weights != NULL)
                score_linear_block(self, features, count, scores);
            else if (wanted != FEATURES)
                score_block(self, features, count, scores);
        }
        cells += count * self->columns * sizeof(double);
        if (wanted == FEATURES) {
            memcpy(out, features, count * self->features * sizeof(double));
            out += count * self->features;
            continue;
        }
        if (wanted == SCORES) {
            memcpy(out, scores, count * self->scores * sizeof(double));
            out += count * self->scores;
            continue;
        }
        for (Py_ssize_t row = 0; row < count; row++, out += self->width)
            answer(self, scores + row * self->scores, outputs, out);
    }
}

static int get_matrix(PyObject *object, Py_buffer *matrix, Py_ssize_t columns, int flags, const char *name)
{
    if (PyObject_GetBuffer(object, matrix, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return -1;
    if (matrix->ndim == 2 && matrix->format != NULL && strcmp(matrix->format, "d") == 0
        && matrix->shape[1] == columns)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must be float64 of shape (n, %zd), row after row", name, columns);
    PyBuffer_Release(matrix);
    return -1;
}

static PyObject *run_on(Scorer *self, PyObject *const *args, Py_ssize_t nargs, int wanted)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "takes a matrix, and one for the result");
        return NULL;
    }
    Py_ssize_t width = wanted == ANSWERS ? self->width : wanted == SCORES ? self->scores : self->features;
    Py_buffer matrix, out;
    if (get_matrix(args[0], &matrix, self->columns, 0, "the matrix") < 0)
        return NULL;
    if (get_matrix(args[1], &out, width, PyBUF_WRITABLE, "the result") < 0) {
        PyBuffer_Release(&matrix);
        return NULL;
    }
    int done = 0;
    Py_ssize_t rows = matrix.shape[0];
    Py_ssize_t block = BLOCK_BYTES / (Py_ssize_t)sizeof(double) / Py_MAX(self->features, 1);
    block = Py_MIN(Py_MIN(Py_MAX(block, LANES), MAX_BLOCK_ROWS), Py_MAX(rows, 1));
    if (out.shape[0] != rows) {
        PyErr_Format(PyExc_ValueError, "the result has %zd rows, the matrix %zd", out.shape[0], rows);
    } else {
        double *space = PyMem_New(double, block * (self->features + self->scores) + Py_MAX(self->scores, 2));
        if (space == NULL) {
            PyErr_NoMemory();
        } else if (rows > 1) {
            Py_BEGIN_ALLOW_THREADS
            run(self, matrix.buf, rows, block, space, wanted, out.buf);
            Py_END_ALLOW_THREADS
            done = 1;
        } else {
            run(self, matrix.buf, rows, block, space, wanted, out.buf);
            done = 1;
        }
        PyMem_Free(space);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&matrix);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(matrix_doc, "matrix($self, matrix, out, /)\n--\n\n"
                         "Write the answers for a float64 matrix (n, columns) to `out` (n, width).");

static PyObject *scorer_matrix(Scorer *self, PyObject *const *args, Py_ssize_t nargs)
{
    return run_on(self, args, nargs, ANSWERS);
}

PyDoc_STRVAR(raw_doc, "raw($self, matrix, out, /)\n--\n\n"
                      "Write the scores before the link to `out` (n, scores).");

static PyObject *scorer_raw(Scorer *self, PyObject *const *args, Py_ssize_t nargs)
{
    return run_on(self, args, nargs, SCORES);
}

PyDoc_STRVAR(prepare_doc, "prepare($self, matrix, out, /)\n--\n\n"
                          "Write the prepared features to `out` (n, features).");

static PyObject *scorer_prepare(Scorer *self, PyObject *const *args, Py_ssize_t nargs)
{
    return run_on(self, args, nargs, FEATURES);
}

static PyMemberDef scorer_members[] = {
    {"adds_steps", T_BOOL, offsetof(Scorer, adds_steps), READONLY, "Whether a row takes no more than its cells."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef scorer_methods[] = {
    {"row", (PyCFunction)scorer_row, METH_O, row_doc},
    {"matrix", (PyCFunction)(void (*)(void))scorer_matrix, METH_FASTCALL, matrix_doc},
    {"raw", (PyCFunction)(void (*)(void))scorer_raw, METH_FASTCALL, raw_doc},
    {"prepare", (PyCFunction)(void (*)(void))scorer_prepare, METH_FASTCALL, prepare_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(scorer_doc, "A flattened pipeline; see compiled.py for what its arrays hold.");

static PyType_Slot scorer_slots[] = {
    {Py_tp_new, scorer_new},
    {Py_tp_dealloc, scorer_dealloc},
    {Py_tp_methods, scorer_methods},
    {Py_tp_members, scorer_members},
    {Py_tp_doc, (void *)scorer_doc},
    {0, NULL},
};

static PyType_Spec scorer_spec = {
    .name = "app.serving.kernels.Scorer",
    .basicsize = sizeof(Scorer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scorer_slots,
};

/* ---------------------------------------------------------------- a step of training */

PyDoc_STRVAR(yeo_johnson_doc,
             "yeo_johnson(matrix, lambdas, /)\n--\n\n"
             "Transform each column of a float64 matrix (n, columns) in place by its lambda (columns).");

static PyObject *yeo_johnson(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *object;
    Py_buffer matrix, lambdas;
    if (!PyArg_ParseTuple(args, "Oy*", &object, &lambdas))
        return NULL;
    Py_ssize_t columns = lambdas.len / (Py_ssize_t)sizeof(double);
    int status = get_matrix(object, &matrix, columns, PyBUF_WRITABLE, "the matrix");
    if (status == 0) {
        double *cell = matrix.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t row = 0; row < matrix.shape[0]; row++)
            for (Py_ssize_t column = 0; column < columns; column++, cell++)
                *cell = powered(*cell, ((const double *)lambdas.buf)[column]);
        Py_END_ALLOW_THREADS
        PyBuffer_Release(&matrix);
    }
    PyBuffer_Release(&lambdas);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- cells from values */

static int refuse_value(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return -1;
}

/* A ValueError in place of the error that says that a value is of the wrong kind. */
static int refuse_for_error(void)
{
    if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return refuse_value("a value that its column cannot hold");
    }
    return -1;
}

static int number_of(PyObject *value, double *cell)
{
    if (PyFloat_CheckExact(value)) {
        *cell = PyFloat_AS_DOUBLE(value);
        return isfinite(*cell) ? 0 : refuse_value("not a finite number");
    }
    if (PyLong_CheckExact(value) || PyBool_Check(value)) {
        *cell = PyLong_AsDouble(value);
        return *cell == -1.0 && PyErr_Occurred() ? refuse_for_error() : 0;
    }
    return refuse_value("not a number");
}

static int whole_of(PyObject *value, double *cell)
{
    if (number_of(value, cell) < 0)
        return -1;
    return *cell == floor(*cell) ? 0 : refuse_value("not a whole number");
}

static int code_of(PyObject *value, PyObject *codes, double *cell)
{
    if (!PyUnicode_CheckExact(value) && whole_of(value, cell) < 0)
        return -1;
    PyObject *code = PyDict_GetItemWithError(codes, value);
    if (code == NULL) {
        *cell = -1.0;
        return PyErr_Occurred() ? refuse_for_error() : 0;
    }
    if (!PyFloat_CheckExact(code))
        return refuse_value("a code must be a float");
    *cell = PyFloat_AS_DOUBLE(code);
    return 0;
}

static int called(PyObject *coder, PyObject *value, double *cell)
{
    PyObject *result = PyObject_CallOneArg(coder, value);
    if (result == NULL)
        return refuse_for_error();
    int status = PyFloat_CheckExact(result) ? number_of(result, cell) : refuse_value("a cell must be a float");
    Py_DECREF(result);
    return status;
}

static int encode(PyObject *values, PyObject *coders, double *cells)
{
    Py_ssize_t count = PyTuple_GET_SIZE(coders);
    if (!PyTuple_Check(values) || PyTuple_GET_SIZE(values) < count)
        return refuse_value("a row must be a tuple with a value for each coder");
    for (Py_ssize_t place = 0; place < count; place++) {
        PyObject *value = PyTuple_GET_ITEM(values, place), *coder = PyTuple_GET_ITEM(coders, place);
        int status;
        if (value == Py_None) {
            cells[place] = Py_NAN;
            continue;
        }
        if (coder == Py_None)
            status = number_of(value, &cells[place]);
        else if (PyDict_CheckExact(coder))
            status = code_of(value, coder, &cells[place]);
        else if (PyUnicode_CheckExact(coder))
            status = PyUnicode_CompareWithASCIIString(coder, "integer") == 0
                         ? whole_of(value, &cells[place])
                         : refuse_value("the only coder that is a string is 'integer'");
        else
            status = called(coder, value, &cells[place]);
        if (status < 0)
            return -1;
    }
    return 0;
}

static int two_arguments(PyObject *const *args, Py_ssize_t nargs, int first_is_sound)
{
    if (nargs == 2 && first_is_sound && PyTuple_Check(args[1]))
        return 0;
    PyErr_SetString(PyExc_TypeError, "takes the values and a tuple of coders");
    return -1;
}

PyDoc_STRVAR(encode_row_doc, "encode_row(values, coders, /)\n--\n\nThe float64 cells of one row, as bytes.");

static PyObject *encode_row(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (two_arguments(args, nargs, 1) < 0)
        return NULL;
    PyObject *bytes =
        PyBytes_FromStringAndSize(NULL, PyTuple_GET_SIZE(args[1]) * (Py_ssize_t)sizeof(double));
    if (bytes != NULL && encode(args[0], args[1], (double *)(void *)PyBytes_AS_STRING(bytes)) < 0)
        Py_CLEAR(bytes);
    return bytes;
}

PyDoc_STRVAR(encode_rows_doc, "encode_rows(rows, coders, /)\n--\n\n"
                              "The float64 cells of a list of rows, one row after the other, as bytes.");

static PyObject *encode_rows(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (two_arguments(args, nargs, nargs == 2 && PyList_Check(args[0])) < 0)
        return NULL;
    Py_ssize_t rows = PyList_GET_SIZE(args[0]), columns = PyTuple_GET_SIZE(args[1]);
    if (columns && rows > PY_SSIZE_T_MAX / (Py_ssize_t)sizeof(double) / columns)
        return PyErr_NoMemory();
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, rows * columns * (Py_ssize_t)sizeof(double));
    if (bytes == NULL)
        return NULL;
    double *cells = (double *)(void *)PyBytes_AS_STRING(bytes);
    for (Py_ssize_t row = 0; row < rows; row++, cells += columns) {
        /* A coder is anybody's code: the list may change under it, and the row may go with it. */
        PyObject *values = row < PyList_GET_SIZE(args[0]) ? PyList_GET_ITEM(args[0], row) : Py_None;
        Py_INCREF(values);
        int status = encode(values, args[1], cells);
        Py_DECREF(values);
        if (status < 0) {
            Py_DECREF(bytes);
            return NULL;
        }
    }
    return bytes;
}

/* ---------------------------------------------------------------- codes of texts */

typedef struct {
    const char *text; /* NULL: empty */
    Py_ssize_t size;
    uint64_t hash;
    double code;
} Slot;

/* A hash table with linear probing, at most half full. */
typedef struct {
    PyObject_HEAD
    PyObject *texts; /* the tuple that owns the bytes */
    Slot *slots;
    uint64_t mask;
} TextCodes;

/* `end` is that of the memory around the text: a word of it is read at once where there is room. */
static uint64_t hash_of(const char *text, Py_ssize_t size, const char *end)
{
    const uint64_t odd = 0x9e3779b97f4a7c15; /* 2^64 by the golden ratio: Knuth's multiplicative hashing */
    uint64_t hash = (uint64_t)size * odd;
    for (; size > 0; text += 8, size -= 8) {
        uint64_t word = 0;
        if (end - text < 8) {
            memcpy(&word, text, Py_MIN(size, 8));
        } else { /* without a guess at the size, which would be wrong every other time */
            memcpy(&word, text, 8);
            word &= UINT64_MAX >> (64 - 8 * Py_MIN(size, 8));
        }
        hash = (hash ^ word) * odd;
        hash ^= hash >> 32;
    }
    return hash;
}

/* Where a text of this hash stands, or the empty slot where it would. Every step of the hash can be undone:
 * texts of one word and one size have different hashes. */
static Slot *slot_of(const TextCodes *self, const char *text, Py_ssize_t size, uint64_t hash)
{
    for (uint64_t place = hash;; place++) {
        Slot *slot = &self->slots[place & self->mask];
        if (slot->text == NULL
            || (slot->hash == hash && slot->size == size && (size <= 8 || memcmp(slot->text, text, size) == 0)))
            return slot;
    }
}

static void text_codes_dealloc(TextCodes *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(self->slots);
    Py_XDECREF(self->texts);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *text_codes_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *texts;
    if (!PyArg_ParseTuple(args, "O!", &PyTuple_Type, &texts))
        return NULL;
    TextCodes *self = (TextCodes *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->texts = Py_NewRef(texts);
    Py_ssize_t count = PyTuple_GET_SIZE(texts), slots = 2;
    while (slots < 2 * count)
        slots *= 2;
    self->mask = (uint64_t)slots - 1;
    self->slots = PyMem_Calloc(slots, sizeof(Slot));
    if (self->slots == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        PyObject *text = PyTuple_GET_ITEM(texts, place);
        if (text == Py_None)
            continue;
        if (!PyBytes_Check(text)) {
            PyErr_SetString(PyExc_TypeError, "takes a tuple of bytes or None");
            Py_DECREF(self);
            return NULL;
        }
        const char *begin = PyBytes_AS_STRING(text);
        Py_ssize_t size = PyBytes_GET_SIZE(text);
        uint64_t hash = hash_of(begin, size, begin + size);
        *slot_of(self, begin, size, hash) = (Slot){begin, size, hash, (double)place};
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(find_doc, "find($self, text, bounds, out, /)\n--\n\n"
                       "Write to float64 `out` (n) the code of each text between int64 `bounds` (n, 2), or -1.");

static PyObject *text_codes_find(TextCodes *self, PyObject *args)
{
    Py_buffer text, bounds, out;
    if (!PyArg_ParseTuple(args, "y*y*w*", &text, &bounds, &out))
        return NULL;
    Py_ssize_t count = out.len / (Py_ssize_t)sizeof(double);
    int sound = out.len % (Py_ssize_t)sizeof(double) == 0 && bounds.len / 2 == out.len && bounds.len % 2 == 0;
    if (sound) {
        const int64_t *bound = bounds.buf;
        double *code = out.buf;
        for (Py_ssize_t row = 0; row < count; row++, bound += 2) {
            code[row] = -1.0;
            if (bound[0] < 0 || bound[1] < bound[0] || bound[1] > text.len)
                continue; /* those of a null may be any */
            const char *begin = (const char *)text.buf + bound[0], *end = (const char *)text.buf + text.len;
            Py_ssize_t size = bound[1] - bound[0];
            const Slot *slot = slot_of(self, begin, size, hash_of(begin, size, end));
            if (slot->text != NULL)
                code[row] = slot->code;
        }
    } else {
        PyErr_SetString(PyExc_ValueError, "takes two bounds for each code");
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&bounds);
    PyBuffer_Release(&text);
    if (!sound)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef text_codes_methods[] = {
    {"find", (PyCFunction)text_codes_find, METH_VARARGS, find_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(text_codes_doc, "The codes of texts: their places in a tuple of bytes, in which None is no text.");

static PyType_Slot text_codes_slots[] = {
    {Py_tp_new, text_codes_new},
    {Py_tp_dealloc, text_codes_dealloc},
    {Py_tp_methods, text_codes_methods},
    {Py_tp_doc, (void *)text_codes_doc},
    {0, NULL},
};

static PyType_Spec text_codes_spec = {
    .name = "app.serving.kernels.TextCodes",
    .basicsize = sizeof(TextCodes),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = text_codes_slots,
};

/* ---------------------------------------------------------------- cells from Arrow's columns */

/* Whether it is a TextCodes: the type is final, and no other is freed like this. */
static inline int is_text_codes(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == (destructor)text_codes_dealloc;
}

/* A part of a batch's body. */
typedef struct {
    const char *bytes;
    int64_t size;
} Span;

/* A column of a record batch, and where its cells go: to every `stride`th number from `cells` on. */
typedef struct {
    const char *format;
    PyObject *coder;
    Py_ssize_t rows;
    int64_t nulls;
    Span valid, values, text;
    double *cells;
    Py_ssize_t stride;
} ArrowColumn;

static inline int is_valid(const ArrowColumn *column, Py_ssize_t row)
{
    return column->nulls == 0 || (column->valid.bytes[row / 8] >> row % 8 & 1);
}

/* Whether a bitmap of validity, where there is one, has as many zeros as there are said to be nulls. */
static int check_nulls(const ArrowColumn *column)
{
    int64_t ones = 0;
    if (column->valid.size == 0)
        return column->nulls == 0;
    if (column->valid.size < (column->rows + 7) / 8)
        return 0;
    for (Py_ssize_t row = 0; row < column->rows; row += 64) {
        uint64_t word = 0;
        Py_ssize_t bits = Py_MIN(column->rows - row, 64);
        memcpy(&word, column->valid.bytes + row / 8, (bits + 7) / 8);
        ones += __builtin_popcountll(word << (64 - bits));
    }
    return column->rows - ones == column->nulls;
}

#define READ_EACH(type, cell_of)                                                     \
    do {                                                                             \
        if (column->values.size / (int64_t)sizeof(type) < column->rows)              \
            return 0;                                                                \
        for (Py_ssize_t row = 0; row < column->rows; row++) {                        \
            type value;                                                              \
            memcpy(&value, column->values.bytes + row * sizeof value, sizeof value); \
            column->cells[row * column->stride] = cell_of;                           \
        }                                                                            \
    } while (0)

/* As far from 1970 as microseconds are exact in a float64, and their quotient is rounded once. */
#define EXACT_MICROSECONDS ((int64_t)1 << 53)
#define EXACT_DAYS (EXACT_MICROSECONDS / 86400000000)

/* Numbers, truth values and times: whether each that is not null is one that JSON could say. */
static int read_numbers(const ArrowColumn *column)
{
    int is_float = 0;
    switch (column->format[0]) {
    case 'c':
        READ_EACH(int8_t, (double)value);
        break;
    case 'C':
        READ_EACH(uint8_t, (double)value);
        break;
    case 's':
        READ_EACH(int16_t, (double)value);
        break;
    case 'S':
        READ_EACH(uint16_t, (double)value);
        break;
    case 'i':
        READ_EACH(int32_t, (double)value);
        break;
    case 'I':
        READ_EACH(uint32_t, (double)value);
        break;
    case 'l':
        READ_EACH(int64_t, (double)value);
        break;
    case 'L':
        READ_EACH(uint64_t, (double)value);
        break;
    case 'g':
        READ_EACH(double, value);
        is_float = 1;
        break;
    case 'b':
        if (column->values.size < (column->rows + 7) / 8)
            return 0;
        for (Py_ssize_t row = 0; row < column->rows; row++)
            column->cells[row * column->stride] = column->values.bytes[row / 8] >> row % 8 & 1;
        break;
    case 't':
        /* What lies too far from 1970 becomes infinite, and is refused below. */
        if (column->format[1] == 'd')
            READ_EACH(int32_t, value < -EXACT_DAYS || value > EXACT_DAYS ? Py_HUGE_VAL : value * 86400.0);
        else
            READ_EACH(int64_t, value < -EXACT_MICROSECONDS || value > EXACT_MICROSECONDS ? Py_HUGE_VAL
                                                                                         : (double)value / 1e6);
        is_float = 1;
        break;
    default:
        return 0;
    }
    int is_whole = is_float && column->coder != Py_None;
    for (Py_ssize_t row = 0; (is_float || column->nulls) && row < column->rows; row++) {
        double *cell = &column->cells[row * column->stride];
        if (!is_valid(column, row))
            *cell = Py_NAN;
        else if (!isfinite(*cell) || (is_whole && *cell != floor(*cell)))
            return 0;
    }
    return 1;
}

/* 1 where a text is UTF-8 without U+0000, 0 where it is not, -1 with an exception. */
static int check_text(Span text, int *is_ascii)
{
    if (text.size && memchr(text.bytes, 0, text.size) != NULL)
        return 0;
    PyObject *decoded = PyUnicode_DecodeUTF8(text.bytes, text.size, NULL);
    if (decoded == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    *is_ascii = PyUnicode_IS_ASCII(decoded);
    Py_DECREF(decoded);
    return 1;
}

/* Whether a text of UTF-8 can be cut here, and not within a character. */
static inline int is_cut(Span text, int64_t at)
{
    return at >= text.size || (text.bytes[at] & 0xC0) != 0x80;
}

static inline int64_t offset_at(const ArrowColumn *column, Py_ssize_t row)
{
    if (column->format[0] == 'U') {
        int64_t offset;
        memcpy(&offset, column->values.bytes + row * sizeof offset, sizeof offset);
        return offset;
    }
    int32_t offset;
    memcpy(&offset, column->values.bytes + row * sizeof offset, sizeof offset);
    return offset;
}

/* Texts: each begins where the one before it ends, and not within a character. */
static int read_texts(const ArrowColumn *column)
{
    Span text = column->text;
    int64_t width = column->format[0] == 'U' ? 8 : 4, start;
    if (column->values.size / width <= column->rows || (start = offset_at(column, 0)) < 0)
        return 0;
    int is_ascii, status = check_text(text, &is_ascii);
    if (status != 1)
        return status;
    if (!is_ascii && !is_cut(text, start))
        return 0;
    const TextCodes *codes = column->coder == Py_None ? NULL : (const TextCodes *)column->coder;
    for (Py_ssize_t row = 0; row < column->rows; row++) {
        int64_t end = offset_at(column, row + 1), size = end - start;
        if (end < start || end > text.size || (!is_ascii && !is_cut(text, end)))
            return 0;
        if (codes != NULL && is_valid(column, row)) {
            const char *begin = text.bytes + start;
            const Slot *slot = slot_of(codes, begin, size, hash_of(begin, size, text.bytes + text.size));
            column->cells[row * column->stride] = slot->text == NULL ? -1.0 : slot->code;
        }
        start = end;
    }
    return 1;
}

/* The pairs of int64 that a batch's metadata gives, and how many of them are taken. */
typedef struct {
    Py_buffer vector;
    Py_ssize_t taken;
} Pairs;

static int take_pair(Pairs *pairs, int64_t pair[2])
{
    if (pairs->taken >= pairs->vector.len / 16)
        return 0;
    memcpy(pair, (const char *)pairs->vector.buf + 16 * pairs->taken++, 16);
    return 1;
}

static int take_span(Pairs *buffers, const Py_buffer *body, Span *span)
{
    int64_t pair[2];
    if (!take_pair(buffers, pair) || pair[0] < 0 || pair[1] < 0 || pair[0] > body->len || pair[1] > body->len - pair[0])
        return 0;
    *span = (Span){(const char *)body->buf + pair[0], pair[1]};
    return 1;
}

static int read_column(ArrowColumn *column, const Py_buffer *body, Pairs *nodes, Pairs *buffers, int nullable)
{
    int64_t node[2];
    if (!take_pair(nodes, node) || node[0] != column->rows || node[1] < 0 || (node[1] && !nullable))
        return 0;
    column->nulls = node[1];
    if (!take_span(buffers, body, &column->valid) || !take_span(buffers, body, &column->values)
        || !check_nulls(column))
        return 0;
    if (column->format[0] != 'u' && column->format[0] != 'U')
        return read_numbers(column);
    return take_span(buffers, body, &column->text) ? read_texts(column) : 0;
}

PyDoc_STRVAR(encode_batch_doc,
             "encode_batch(body, nodes, buffers, rows, coders, width, /)\n--\n\n"
             "The float64 cells of a record batch of Arrow, row by row, as bytes; None for what is not plain.");

static PyObject *encode_batch(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer body;
    Pairs nodes = {.taken = 0}, buffers = {.taken = 0};
    Py_ssize_t rows, width;
    PyObject *coders, *bytes = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*nO!n", &body, &nodes.vector, &buffers.vector, &rows, &PyTuple_Type, &coders,
                          &width))
        return NULL;
    double *aside = NULL; /* for cells that no model wants */
    int status = -1;
    if (rows < 0 || width < 0 || rows > PY_SSIZE_T_MAX / (Py_ssize_t)sizeof(double) / Py_MAX(width, 1)) {
        PyErr_SetString(PyExc_ValueError, "a batch of impossible size");
        goto done;
    }
    bytes = PyBytes_FromStringAndSize(NULL, rows * width * (Py_ssize_t)sizeof(double));
    aside = PyMem_New(double, Py_MAX(rows, 1));
    if (bytes == NULL || aside == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    double *cells = (double *)(void *)PyBytes_AS_STRING(bytes);
    for (Py_ssize_t cell = 0; cell < rows * width; cell++)
        cells[cell] = Py_NAN; /* a column that is not sent is null */
    status = 1;
    for (Py_ssize_t place = 0; status == 1 && place < PyTuple_GET_SIZE(coders); place++) {
        ArrowColumn column = {.rows = rows};
        Py_ssize_t to;
        int nullable;
        status = -1;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(coders, place), "snOp", &column.format, &to, &column.coder, &nullable))
            break;
        int is_text = column.format[0] == 'u' || column.format[0] == 'U';
        if (to >= width || (is_text && column.coder != Py_None && !is_text_codes(column.coder))) {
            PyErr_SetString(PyExc_ValueError, "a column that goes nowhere, or texts without their TextCodes");
            break;
        }
        column.cells = to < 0 ? aside : cells + to;
        column.stride = to < 0 ? 1 : width;
        status = read_column(&column, &body, &nodes, &buffers, nullable);
    }
    if (status == 1 && (nodes.taken * 16 != nodes.vector.len || buffers.taken * 16 != buffers.vector.len))
        status = 0;
done:
    PyMem_Free(aside);
    PyBuffer_Release(&buffers.vector);
    PyBuffer_Release(&nodes.vector);
    PyBuffer_Release(&body);
    if (status == 1)
        return bytes;
    Py_XDECREF(bytes);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- base32 */

PyDoc_STRVAR(base32_doc, "base32(raw, /)\n--\n\n"
                         "RFC 4648 base32 in lower case of bytes whose length is a multiple of 5.");

/* Eight letters of 40 bits, which are spread over eight bytes and made letters there all at once. */
static inline uint64_t letters_of(uint64_t bits)
{
    const uint64_t ones = 0x0101010101010101;
    bits = (bits & 0xFFFFF00000) << 12 | (bits & 0x00000FFFFF);
    bits = (bits & 0x000FFC00000FFC00) << 6 | (bits & 0x000003FF000003FF);
    bits = (bits & 0x03E003E003E003E0) << 3 | (bits & 0x001F001F001F001F);
    uint64_t is_digit = (bits + ones * (128 - 26)) >> 7 & ones;
    return bits + ones * 'a' - is_digit * ('a' + 26 - '2');
}

static PyObject *base32(PyObject *Py_UNUSED(module), PyObject *raw)
{
    if (!PyBytes_Check(raw) || PyBytes_GET_SIZE(raw) % 5) {
        PyErr_SetString(PyExc_ValueError, "takes bytes whose length is a multiple of 5");
        return NULL;
    }
    const unsigned char *byte = (const unsigned char *)PyBytes_AS_STRING(raw);
    Py_ssize_t groups = PyBytes_GET_SIZE(raw) / 5;
    if (groups > PY_SSIZE_T_MAX / 8)
        return PyErr_NoMemory();
    PyObject *text = PyUnicode_New(groups * 8, 127);
    if (text == NULL)
        return NULL;
    Py_UCS1 *letter = PyUnicode_1BYTE_DATA(text);
    for (Py_ssize_t group = 0; group < groups; group++, byte += 5, letter += 8) {
        uint64_t bits = 0;
        for (int place = 0; place < 5; place++)
            bits = bits << 8 | byte[place];
        bits = __builtin_bswap64(letters_of(bits));
        memcpy(letter, &bits, sizeof bits);
    }
    return text;
}

/* ---------------------------------------------------------------- the module */

static PyMethodDef methods[] = {
    {"encode_row", (PyCFunction)(void (*)(void))encode_row, METH_FASTCALL, encode_row_doc},
    {"encode_rows", (PyCFunction)(void (*)(void))encode_rows, METH_FASTCALL, encode_rows_doc},
    {"encode_batch", encode_batch, METH_VARARGS, encode_batch_doc},
    {"yeo_johnson", yeo_johnson, METH_VARARGS, yeo_johnson_doc},
    {"base32", base32, METH_O, base32_doc},
    {NULL, NULL, 0, NULL},
};

static int fill_module(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"VALUE", VALUE},       {"MISSING", MISSING},   {"TIME", TIME},       {"ONE_HOT", ONE_HOT},
        {"CURVE", CURVE},       {"LOOKUP", LOOKUP},     {"PRODUCT", PRODUCT},
        {"IDENTITY", IDENTITY}, {"LOGISTIC", LOGISTIC}, {"SOFTMAX", SOFTMAX}, {"SIGMOIDS", SIGMOIDS},
        {"SPLIT", SPLIT},       {"MISSING_LEFT", MISSING_LEFT},               {"FEATURE_SHIFT", FEATURE_SHIFT},
    };
    for (size_t place = 0; place < Py_ARRAY_LENGTH(constants); place++)
        if (PyModule_AddIntConstant(module, constants[place].name, constants[place].value) < 0)
            return -1;
    PyType_Spec *types[] = {&scorer_spec, &text_codes_spec};
    for (size_t place = 0; place < Py_ARRAY_LENGTH(types); place++) {
        PyObject *type = PyType_FromModuleAndSpec(module, types[place], NULL);
        int status = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
        Py_XDECREF(type);
        if (status < 0)
            return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill_module},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "app.serving.kernels",
    .m_doc = "The inner loops of serving, in C: cells from values, scores from cells.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_kernels(void)
{
    return PyModuleDef_Init(&definition);
}
