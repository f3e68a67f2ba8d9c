/* One pass over the bytes of a CSV file: is it well formed, and what can its columns be read as?
 *
 * scan() takes a block of whole records and can run in several threads at once, each with a block of its
 * own. The caller words the faults and adds the blocks up.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef unsigned char Byte;

/* What a text can be read as; app.datasets.reading.infer.Kind. */
enum {
    INTEGER = 1,
    NUMBER = 2,
    TRUE_FALSE = 4,
    DATE = 8,
    NAIVE_TIME = 16,
    ZONED_TIME = 32,
    YES_NO = 64,
    Y_N = 128,
    T_F = 256,
    ON_OFF = 512,
    ZERO_ONE = 1024,
    CODE = 2048, /* digits that are no 64-bit integer as integers are written: 00123 */
    SAYS_TRUE = 4096,
    SAYS_FALSE = 8192, /* either with one of the pairs of words, whose numbers are lower */
};

/* Why a record is refused. */
enum {
    NO_FAULT,
    STRAY_QUOTE, /* neither begins nor ends a field, nor is doubled inside one */
    OPEN_QUOTE,  /* no quote ends the field */
    NOT_UTF8,
    NULL_BYTE,
    BARE_RETURN,
    OTHER_LINE_END,
    WIDTH,
    BLANK, /* and a filled record follows */
};

enum { LF = '\n', CR = '\r' };
enum { SHOWN_MISFITS = 5, MAX_NULLS = 63, EMPTY = 63, TEXT = 12, COUNTS = 13 };

/* A column of the block; app.datasets.reading.scan_csv.FACTS. Nulls are no values. */
typedef struct {
    uint32_t wanted; /* in: values of none of these kinds are misfits; 0: none is */
    uint32_t common; /* in and out: the kinds that every value has */
    uint32_t met;    /* the kinds that any value has */
    uint32_t misfits_shown;
    uint64_t nulls; /* bit n: null marker n was met; bit EMPTY: an unquoted empty field was */
    int64_t counts[COUNTS]; /* values by the lowest of their kinds, 2^n at n; at TEXT those of none */
    int64_t misfits;
    struct {
        int64_t record, at, size;
    } misfit[SHOWN_MISFITS]; /* the first: record and place in the block, and bytes */
} Column;

typedef struct {
    const Byte *text[MAX_NULLS];
    Py_ssize_t size[MAX_NULLS];
    int count;
    Byte begins[256]; /* some marker begins with this byte */
    int empty;        /* the number of the marker "", or -1 */
} Nulls;

typedef struct {
    const Byte *data;
    Py_ssize_t size;
    Column *columns;
    Py_ssize_t width;
    int delimiter, quote; /* quote: -1 for none */
    int crlf, completed;  /* completed: the last line feed is not in the file */
    const Nulls *nulls;
    uint32_t weights[256]; /* ENDS: the byte ends an unquoted field, or may not be in it; else see Weight */

    int fault;
    Py_ssize_t fault_at, records, newlines, longest;
    Py_ssize_t blank, blank_at; /* the first of the blank records at the end, and where it is; or -1 */
} Scan;

/* ---------------------------------------------------------------- what a text can be read as */

static inline int is_digit(Byte byte)
{
    return (unsigned)(byte - '0') < 10;
}

/* 2^1024 - 2^970: it and what is beyond it are rounded to infinity (IEEE 754, ties to even). */
static const char BEYOND_DOUBLE[] =
    "179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587"
    "207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711"
    "531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093"
    "042880177904174497792";

/* Whether digits, with a point among them or not, times ten to the exponent are a finite double. */
static int is_finite(const Byte *text, const Byte *end, int64_t exponent)
{
    if (exponent == 0 && end - text < 300)
        return 1;
    const Byte *point = memchr(text, '.', end - text);
    int64_t places = (point ? point : end) - text - 1; /* the first digit's power of ten */
    while (text < end && (*text == '0' || *text == '.'))
        places -= *text++ == '0';
    if (text == end)
        return 1;
    int64_t power = places + exponent;
    if (power != 308)
        return power < 308;
    const char *limit = BEYOND_DOUBLE;
    for (; text < end && *limit; text++) {
        if (*text == '.')
            continue;
        if (*text != (Byte)*limit)
            return *text < (Byte)*limit;
        limit++;
    }
    while (*limit == '0')
        limit++;
    return *limit != 0;
}

/* The number that begins at `text`, behind its sign; `whole` is behind its leading digits. */
static uint32_t fraction_kinds(const Byte *text, const Byte *whole, const Byte *end)
{
    if (whole - text > 1 && *text == '0')
        return 0;
    const Byte *at = whole;
    if (*at == '.') {
        do
            at++;
        while (at < end && is_digit(*at));
        if (at - text == 1)
            return 0;
    }
    const Byte *mantissa_end = at;
    int64_t exponent = 0;
    if (at < end) {
        if ((*at | 32) != 'e' || at == text)
            return 0;
        at++;
        int negative = at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        if (at == end)
            return 0;
        for (; at < end; at++) {
            if (!is_digit(*at))
                return 0;
            if (exponent < INT64_C(1) << 40) /* no file is so long that more of it matters */
                exponent = exponent * 10 + (*at - '0');
        }
        if (negative)
            exponent = -exponent;
    }
    return is_finite(text, mantissa_end, exponent) ? NUMBER : 0;
}

static uint32_t number_kinds(const Byte *text, const Byte *end)
{
    int negative = *text == '-';
    text += negative;
    const Byte *at = text;
    uint64_t value = 0;
    while (at < end && is_digit(*at))
        value = value * 10 + (*at++ - '0');
    if (at < end)
        return fraction_kinds(text, at, end);
    Py_ssize_t digits = end - text;
    if (digits == 0)
        return 0;
    if (*text == '0') {
        if (digits > 1)
            return negative ? 0 : CODE;
        return negative ? NUMBER : INTEGER | NUMBER | ZERO_ONE;
    }
    /* 19 digits are less than 2^64. */
    if (digits > 19 || value > (uint64_t)INT64_MAX + negative)
        return negative ? 0 : CODE;
    uint64_t odd = value;
    while (!(odd & 1))
        odd >>= 1;
    return INTEGER | (odd < UINT64_C(1) << 53 ? NUMBER : 0) | (value == 1 && !negative ? ZERO_ONE : 0);
}

static inline int two_digits(const Byte *text)
{
    return is_digit(text[0]) && is_digit(text[1]) ? (text[0] - '0') * 10 + text[1] - '0' : -1;
}

/* Of a text of at least ten bytes whose fifth is a hyphen. */
static uint32_t time_kinds(const Byte *text, const Byte *end)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int century = two_digits(text), year = two_digits(text + 2);
    int month = two_digits(text + 5), day = two_digits(text + 8);
    if (century < 0 || year < 0 || text[7] != '-' || month < 1 || month > 12 || day < 1)
        return 0;
    year += century * 100;
    int leap = month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (year == 0 || day > lengths[month - 1] + leap)
        return 0;
    if (end - text == 10)
        return DATE;
    if (end - text < 16 || (text[10] != 'T' && text[10] != ' ') || text[13] != ':')
        return 0;
    int hour = two_digits(text + 11), minute = two_digits(text + 14);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59)
        return 0;
    const Byte *at = text + 16;
    if (end - at >= 3 && *at == ':') {
        int second = two_digits(at + 1);
        if (second < 0 || second > 59)
            return 0;
        at += 3;
        if (at < end && *at == '.') {
            const Byte *begin = ++at;
            for (; at < end && is_digit(*at); at++)
                if (at - begin >= 6 && *at != '0')
                    return 0;
            if (at == begin)
                return 0;
        }
    }
    if (at == end)
        return NAIVE_TIME;
    if (*at == 'Z')
        return at + 1 == end ? ZONED_TIME : 0;
    if (end - at < 3 || (*at != '+' && *at != '-'))
        return 0;
    int sign = *at == '-' ? -1 : 1, hours = two_digits(at + 1), minutes = 0;
    at += 3;
    if (hours < 0 || hours > 23)
        return 0;
    if (at < end) {
        at += *at == ':';
        if (end - at != 2)
            return 0;
        minutes = two_digits(at);
        if (minutes < 0 || minutes > 59)
            return 0;
    }
    int of_day = hour * 60 + minute - sign * (hours * 60 + minutes); /* in UTC, which may be another day */
    if ((year == 1 && month == 1 && day == 1 && of_day < 0) ||
        (year == 9999 && month == 12 && day == 31 && of_day >= 24 * 60))
        return 0;
    return ZONED_TIME;
}

/* Up to five letters as a number. */
#define WORD(a, b, c, d, e) \
    ((((((uint64_t)(a) << 8 | (b)) << 8 | (c)) << 8 | (d)) << 8) | (e))

static uint32_t word_kinds(const Byte *text, Py_ssize_t size)
{
    if (size > 5)
        return 0;
    uint64_t word = 0;
    for (Py_ssize_t place = 0; place < size; place++)
        word = word << 8 | (text[place] >= 'A' && text[place] <= 'Z' ? text[place] | 32 : text[place]);
    switch (word) {
    case WORD(0, 't', 'r', 'u', 'e'):
        return TRUE_FALSE | SAYS_TRUE;
    case WORD('f', 'a', 'l', 's', 'e'):
        return TRUE_FALSE | SAYS_FALSE;
    case WORD(0, 0, 'y', 'e', 's'):
        return YES_NO | SAYS_TRUE;
    case WORD(0, 0, 0, 'n', 'o'):
        return YES_NO | SAYS_FALSE;
    case WORD(0, 0, 0, 0, 'y'):
        return Y_N | SAYS_TRUE;
    case WORD(0, 0, 0, 0, 'n'):
        return Y_N | SAYS_FALSE;
    case WORD(0, 0, 0, 0, 't'):
        return T_F | SAYS_TRUE;
    case WORD(0, 0, 0, 0, 'f'):
        return T_F | SAYS_FALSE;
    case WORD(0, 0, 0, 'o', 'n'):
        return ON_OFF | SAYS_TRUE;
    case WORD(0, 0, 'o', 'f', 'f'):
        return ON_OFF | SAYS_FALSE;
    }
    return 0;
}

static uint32_t kinds_of(const Byte *text, Py_ssize_t size)
{
    if (size == 0)
        return 0;
    switch (*text) {
    case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        if (size >= 10 && text[4] == '-')
            return time_kinds(text, text + size);
        /* fall through */
    case '-': case '.':
        return number_kinds(text, text + size);
    case 't': case 'f': case 'y': case 'n': case 'o': case 'T': case 'F': case 'Y': case 'N': case 'O':
        return word_kinds(text, size);
    }
    return 0;
}

/* What a byte adds to the weight of its text: up to SHORT bytes, the sum tells how many there are of each. */
enum { SHORT = 15, POINT = 1 << 8, MINUS = 1 << 16, OTHER = 1 << 24, ENDS = 1 << 30 };

static void fill_weights(uint32_t weights[256])
{
    for (int byte = 0; byte < 256; byte++)
        weights[byte] = is_digit(byte) ? 0 : byte == '.' ? POINT : byte == '-' ? MINUS : OTHER;
}

/* As kinds_of, of most numbers of at most SHORT bytes; 0 of others, and of what is no number. */
static inline uint32_t short_number_kinds(const Byte *text, Py_ssize_t size, uint32_t weight)
{
    int negative = *text == '-';
    if (weight & ~(uint32_t)POINT & ~(uint32_t)(negative ? MINUS : 0))
        return 0;
    text += negative;
    size -= negative;
    if (weight & POINT)
        return size > 1 && (*text != '0' || text[1] == '.') ? NUMBER : 0;
    /* So few digits are less than 2^53. */
    return size > 0 && *text > '0' + (size == 1 && !negative) ? INTEGER | NUMBER : 0;
}

/* ---------------------------------------------------------------- the scan */

static int null_marker(const Nulls *nulls, const Byte *text, Py_ssize_t size)
{
    if (size == 0)
        return nulls->empty;
    if (nulls->begins[*text])
        for (int number = 0; number < nulls->count; number++)
            if (nulls->size[number] == size && memcmp(nulls->text[number], text, size) == 0)
                return number;
    return -1;
}

#ifdef __SSE2__
/* The four bytes that end an unquoted field, or may not be in it, each 16 times. */
typedef struct {
    __m128i delimiter, quote, lf, cr;
} Ends;

static Ends ends_of(const Scan *scan)
{
    char quote = (char)(scan->quote < 0 ? scan->delimiter : scan->quote);
    return (Ends){_mm_set1_epi8((char)scan->delimiter), _mm_set1_epi8(quote), _mm_set1_epi8(LF),
                  _mm_set1_epi8(CR)};
}

static inline uint32_t places_of(char byte, __m128i text)
{
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8(byte)));
}

/* What the bytes of the text weigh that are `inside`: one point and a minus at the begin, or OTHER as well. */
static inline uint32_t weight_of(__m128i text, uint32_t inside)
{
    /* Shifted so far, the digits are the smallest ten of all signed bytes. */
    __m128i shifted = _mm_add_epi8(text, _mm_set1_epi8((char)(128 - '0')));
    uint32_t digits = (uint32_t)_mm_movemask_epi8(_mm_cmplt_epi8(shifted, _mm_set1_epi8(10 - 128)));
    uint32_t points = inside & places_of('.', text), minus = inside & places_of('-', text) & 1;
    uint32_t others = inside & ~(digits | points | minus);
    return (others | (points & (points - 1)) ? OTHER : 0) | (points ? POINT : 0) | (minus ? MINUS : 0);
}
#else
typedef int Ends;
#define ends_of(scan) 0
#endif

/* Where the unquoted field ends that begins at `at`. The weight is right if it has at most SHORT bytes. */
static inline const Byte *field_end(const Scan *scan, const Ends *ends, const Byte *at, const Byte *end,
                                    uint32_t *weight)
{
#ifdef __SSE2__
    const Byte *begin = at;
    for (; end - at >= 16; at += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)at);
        __m128i cell = _mm_or_si128(_mm_cmpeq_epi8(text, ends->delimiter), _mm_cmpeq_epi8(text, ends->quote));
        __m128i line = _mm_or_si128(_mm_cmpeq_epi8(text, ends->lf), _mm_cmpeq_epi8(text, ends->cr));
        uint32_t stops = (uint32_t)_mm_movemask_epi8(_mm_or_si128(cell, line));
        if (stops) {
            if (at == begin)
                *weight = weight_of(text, (stops & -stops) - 1);
            return at + __builtin_ctz(stops);
        }
    }
#endif
    *weight = 0;
    for (uint32_t more; !((more = scan->weights[*at]) & ENDS); at++)
        *weight += more;
    return at;
}

/* Where the next quote is, or `end`; counts the line feeds before it. */
static inline const Byte *next_quote(int quote, const Byte *at, const Byte *end, Py_ssize_t *newlines)
{
#ifdef __SSE2__
    for (; end - at >= 16; at += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)at);
        uint32_t quotes = places_of((char)quote, text), lines = places_of(LF, text);
        for (lines &= quotes ? (quotes & -quotes) - 1 : 0xffff; lines; lines &= lines - 1)
            ++*newlines;
        if (quotes)
            return at + __builtin_ctz(quotes);
    }
#endif
    for (; at < end && *at != quote; at++)
        *newlines += *at == LF;
    return at;
}

static void admit(Scan *scan, Column *column, const Byte *text, Py_ssize_t size, uint32_t weight, int quoted,
                  int plain)
{
    if (size == 0 && !quoted) {
        column->nulls |= UINT64_C(1) << EMPTY;
        return;
    }
    uint32_t kinds = 0;
    if (plain) { /* no quote is doubled in it: what it reads is what stands there */
        int marker = null_marker(scan->nulls, text, size);
        if (marker >= 0) {
            column->nulls |= UINT64_C(1) << marker;
            return;
        }
        if (size <= SHORT && size > 0)
            kinds = short_number_kinds(text, size, weight);
        if (!kinds)
            kinds = kinds_of(text, size);
    }
    column->counts[__builtin_ctz(kinds | 1 << TEXT)]++;
    column->common &= kinds;
    column->met |= kinds;
    if (column->wanted && !(kinds & column->wanted)) {
        column->misfits++;
        if (column->misfits_shown < SHOWN_MISFITS) {
            column->misfit[column->misfits_shown].record = scan->records;
            column->misfit[column->misfits_shown].at = text - scan->data;
            column->misfit[column->misfits_shown++].size = size;
        }
    }
}

static void scan_records(Scan *scan)
{
    const Byte *at = scan->data, *end = at + scan->size; /* the last byte is a line feed */
    const Byte *added = scan->completed ? end - 1 : end;
    const int quote = scan->quote, delimiter = scan->delimiter;
    const Ends ends = ends_of(scan);
    while (at < end) {
        const Byte *record = at;
        int blank = scan->width > 1 && (*at == LF || (*at == CR && at + 1 < added && at[1] == LF));
        if (!blank && scan->blank >= 0) {
            scan->fault = BLANK;
            scan->fault_at = scan->blank_at;
            return;
        }
        if (blank && scan->blank < 0) {
            scan->blank = scan->records;
            scan->blank_at = at - scan->data;
        }
        for (Py_ssize_t field = 0;; field++) {
            const Byte *text = at;
            Py_ssize_t size;
            uint32_t weight = OTHER;
            int plain = 1, quoted = *at == quote;
            if (quoted) {
                Py_ssize_t newlines = 0; /* not in the struct: a byte that is read might alias it */
                for (text = ++at;; at++) {
                    at = next_quote(quote, at, end, &newlines);
                    if (at == end) {
                        scan->fault = OPEN_QUOTE;
                        scan->fault_at = text - 1 - scan->data;
                        return;
                    }
                    if (*++at != quote) /* the last byte is none */
                        break;
                    plain = 0;
                }
                scan->newlines += newlines;
                size = at - 1 - text;
            } else {
                at = field_end(scan, &ends, at, end, &weight);
                size = at - text;
            }
            if (field < scan->width && !blank)
                admit(scan, &scan->columns[field], text, size, weight, quoted, plain);
            if (*at == delimiter) {
                at++;
                continue;
            }
            int crlf = *at == CR;
            if (*at != LF && !crlf) {
                scan->fault = STRAY_QUOTE;
                at -= quoted;
            } else if (crlf && (at + 1 >= added || at[1] != LF)) {
                scan->fault = BARE_RETURN;
            } else {
                at += crlf;
                if (crlf != scan->crlf && at != added)
                    scan->fault = OTHER_LINE_END;
                else if (field + 1 != scan->width && !blank)
                    scan->fault = WIDTH;
            }
            if (scan->fault != NO_FAULT) {
                scan->fault_at = at - scan->data;
                return;
            }
            break;
        }
        at++;
        scan->records++;
        scan->newlines++;
        if (at - record > scan->longest)
            scan->longest = at - record;
    }
}

/* How many bytes at `at` are a character of UTF-8 (Unicode, table 3-7), or 0. */
static int character_size(const Byte *at, const Byte *end)
{
    Byte lead = *at, low = 0x80, high = 0xBF;
    int size = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (size < 2)
        return size;
    if (lead == 0xE0)
        low = 0xA0; /* less is overlong */
    else if (lead == 0xED)
        high = 0x9F; /* more is a surrogate */
    else if (lead == 0xF0)
        low = 0x90; /* less is overlong */
    else if (lead == 0xF4)
        high = 0x8F; /* more is beyond U+10FFFF */
    if (end - at < size || at[1] < low || at[1] > high)
        return 0;
    for (int place = 2; place < size; place++)
        if ((at[place] & 0xC0) != 0x80)
            return 0;
    return size;
}

/* The first byte that is null or not UTF-8, or the end. */
static const Byte *find_bad_byte(const Byte *at, const Byte *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high_bits = UINT64_C(0x8080808080808080);
    while (at < end) {
        uint64_t eight;
        for (; end - at >= 8; at += 8) {
            memcpy(&eight, at, 8);
            if ((eight | (eight - ones)) & high_bits) /* one is beyond ASCII, or zero */
                break;
        }
        for (const Byte *stop = end - at > 8 ? at + 8 : end; at < stop;) {
            int size = *at ? character_size(at, end) : 0;
            if (size == 0)
                return at;
            at += size;
        }
    }
    return end;
}

/* ---------------------------------------------------------------- for Python */

static int read_nulls(PyObject *markers, Nulls *nulls)
{
    memset(nulls, 0, sizeof *nulls);
    nulls->empty = -1;
    if (!PyTuple_Check(markers) || PyTuple_GET_SIZE(markers) > MAX_NULLS) {
        PyErr_Format(PyExc_ValueError, "takes a tuple of at most %d null markers", MAX_NULLS);
        return -1;
    }
    for (; nulls->count < PyTuple_GET_SIZE(markers); nulls->count++) {
        char *text;
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(markers, nulls->count), &text,
                                    &nulls->size[nulls->count]) < 0)
            return -1;
        nulls->text[nulls->count] = (const Byte *)text;
        if (nulls->size[nulls->count])
            nulls->begins[(Byte)*text] = 1;
        else
            nulls->empty = nulls->count;
    }
    return 0;
}

PyDoc_STRVAR(scan_doc, "scan(block, columns, delimiter, quote, crlf, completed, nulls, /)\n--\n\n");

static PyObject *scan_block(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer block, columns;
    PyObject *markers, *result = NULL;
    Nulls nulls;
    Scan scan = {.nulls = &nulls, .blank = -1};
    if (!PyArg_ParseTuple(args, "y*w*iippO", &block, &columns, &scan.delimiter, &scan.quote, &scan.crlf,
                          &scan.completed, &markers))
        return NULL;
    scan.data = block.buf;
    scan.size = block.len;
    scan.columns = columns.buf;
    scan.width = columns.len / (Py_ssize_t)sizeof(Column);
    if (block.len == 0 || scan.data[block.len - 1] != LF || columns.len == 0 ||
        columns.len % (Py_ssize_t)sizeof(Column) || (uintptr_t)columns.buf % _Alignof(Column) ||
        scan.delimiter < 0 || scan.delimiter > 255 || scan.quote < -1 || scan.quote > 255 ||
        scan.delimiter == LF || scan.quote == LF) {
        PyErr_SetString(PyExc_ValueError, "takes a block that ends in a line feed, and columns");
        goto done;
    }
    if (read_nulls(markers, &nulls) < 0)
        goto done;
    fill_weights(scan.weights);
    scan.weights[LF] = scan.weights[CR] = scan.weights[scan.delimiter] = ENDS;
    if (scan.quote >= 0)
        scan.weights[scan.quote] = ENDS;
    Py_BEGIN_ALLOW_THREADS
    scan_records(&scan);
    const Byte *end = scan.data + scan.size, *bad = find_bad_byte(scan.data, end);
    if (bad < end && (scan.fault == NO_FAULT || bad - scan.data < scan.fault_at)) {
        scan.fault = *bad ? NOT_UTF8 : NULL_BYTE;
        scan.fault_at = bad - scan.data;
    }
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("(innnnnn)", scan.fault, scan.fault_at, scan.records, scan.newlines, scan.longest,
                           scan.blank, scan.blank_at);
done:
    PyBuffer_Release(&block);
    PyBuffer_Release(&columns);
    return result;
}

/* Whether a byte stands an odd number of times in the data. */
static int is_odd(const Byte *data, Py_ssize_t size, int byte)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), low_bits = UINT64_C(0x7F7F7F7F7F7F7F7F);
    uint64_t odd = 0, eight; /* bit 7 of each byte: whether it stood there an odd number of times */
    Py_ssize_t at = 0;
    for (; size - at >= 8; at += 8) {
        memcpy(&eight, data + at, 8);
        eight ^= ones * (Byte)byte;
        odd ^= ~(((eight & low_bits) + low_bits) | eight | low_bits); /* which are zero now */
    }
    for (; at < size; at++)
        odd ^= (uint64_t)(data[at] == byte) << 7;
    odd ^= odd >> 32;
    odd ^= odd >> 16;
    return (int)((odd ^ odd >> 8) >> 7 & 1);
}

PyDoc_STRVAR(last_end_doc, "last_end(data, quote, /)\n--\n\n"
                           "Where the last record ends that begins at the begin of the data, or 0.");

static PyObject *last_end(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data;
    int quote;
    if (!PyArg_ParseTuple(args, "y*i", &data, &quote))
        return NULL;
    const Byte *begin = data.buf;
    Py_ssize_t end = data.len;
    Py_BEGIN_ALLOW_THREADS
    int open = quote >= 0 && is_odd(begin, end, quote);
    for (; end > 0 && (open || begin[end - 1] != LF); end--)
        open ^= begin[end - 1] == quote;
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return PyLong_FromSsize_t(end);
}

PyDoc_STRVAR(read_as_doc, "read_as(text, /)\n--\n\nThe kinds that a text can be read as, added up.");

static PyObject *read_as(PyObject *Py_UNUSED(module), PyObject *text)
{
    char *begin;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(text, &begin, &size) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(kinds_of((const Byte *)begin, size));
}

static PyMethodDef methods[] = {
    {"scan", scan_block, METH_VARARGS, scan_doc},
    {"last_end", last_end, METH_VARARGS, last_end_doc},
    {"read_as", read_as, METH_O, read_as_doc},
    {NULL, NULL, 0, NULL},
};

static int fill_module(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"STRAY_QUOTE", STRAY_QUOTE},       {"OPEN_QUOTE", OPEN_QUOTE},
        {"NOT_UTF8", NOT_UTF8},             {"NULL_BYTE", NULL_BYTE},
        {"BARE_RETURN", BARE_RETURN},       {"OTHER_LINE_END", OTHER_LINE_END},
        {"WIDTH", WIDTH},                   {"BLANK", BLANK},
        {"MAX_NULLS", MAX_NULLS},           {"SHOWN_MISFITS", SHOWN_MISFITS},
        {"COUNTS", COUNTS},                 {"COLUMN_BYTES", sizeof(Column)},
    };
    for (size_t place = 0; place < Py_ARRAY_LENGTH(constants); place++)
        if (PyModule_AddIntConstant(module, constants[place].name, constants[place].value) < 0)
            return -1;
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
    .m_name = "app.datasets.reading.scanner",
    .m_doc = "One pass over the bytes of a CSV file, in C: its faults, its rows and what its columns can be.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_scanner(void)
{
    return PyModuleDef_Init(&definition);
}
