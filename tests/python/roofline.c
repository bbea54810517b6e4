/* What this processor reaches on one thread and on two, as JSON: multiply-adds of the widest vectors that it is compiled for, in
 * registers, in GFLOP/s, and copies of a block too large for any cache, in GB/s read plus written.
 *
 *   gcc -O2 -march=native -pthread roofline.c -o roofline && ./roofline
 */
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __AVX512F__
typedef __m512 vector;
#define SPLAT _mm512_set1_ps
#define MULTIPLY_ADD _mm512_fmadd_ps
#else
typedef __m256 vector;
#define SPLAT _mm256_set1_ps
#define MULTIPLY_ADD _mm256_fmadd_ps
#endif

enum { LANES = sizeof(vector) / sizeof(float) };
enum { THREADS = 2, COPY_BYTES = 64 << 20, TURNS = 7 };

static pthread_barrier_t barrier;
static char *memory[THREADS][2];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* Gives the work done: floating-point operations. */
static double multiply_adds(int thread) {
    const long rounds = 20 * 1000 * 1000;
    vector x = SPLAT(1.0001f), y = SPLAT(0.5f);
    (void)thread;
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define BEGIN(i) vector sum##i = SPLAT(0.0f);
/* The empty assembly keeps a sum in its register, and the loop from being folded. */
#define ADD(i) sum##i = MULTIPLY_ADD(x, y, sum##i); __asm__ volatile("" : "+v"(sum##i));
    EACH(BEGIN)
    for (long round = 0; round < rounds; round++) {
        EACH(ADD)
    }
    return 2.0 * LANES * 12 * rounds;
}

/* Gives the bytes read and written. */
static double copies(int thread) {
    for (int i = 0; i < 4; i++) memcpy(memory[thread][i % 2], memory[thread][1 - i % 2], COPY_BYTES);
    return 2.0 * 4 * COPY_BYTES;
}

struct job {
    int thread;
    double (*work)(int);
    double done, began, ended;
};

static void *run(void *argument) {
    struct job *job = argument;
    pthread_barrier_wait(&barrier);
    job->began = now();
    job->done = job->work(job->thread);
    job->ended = now();
    return NULL;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Work of all threads in a nanosecond: the median of some turns. */
static double rate(double (*work)(int), int threads) {
    double rates[TURNS];
    for (int turn = 0; turn < TURNS; turn++) {
        pthread_t handles[THREADS];
        struct job jobs[THREADS];
        pthread_barrier_init(&barrier, NULL, threads);
        for (int i = 0; i < threads; i++) {
            jobs[i] = (struct job){.thread = i, .work = work};
            pthread_create(&handles[i], NULL, run, &jobs[i]);
        }
        double done = 0, began = 1e300, ended = 0;
        for (int i = 0; i < threads; i++) {
            pthread_join(handles[i], NULL);
            done += jobs[i].done;
            if (jobs[i].began < began) began = jobs[i].began;
            if (jobs[i].ended > ended) ended = jobs[i].ended;
        }
        pthread_barrier_destroy(&barrier);
        rates[turn] = done / (ended - began) / 1e9;
    }
    qsort(rates, TURNS, sizeof *rates, ascending);
    return rates[TURNS / 2];
}

int main(void) {
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < 2; j++) {
            memory[i][j] = aligned_alloc(64, COPY_BYTES);
            memset(memory[i][j], j + 1, COPY_BYTES);
        }
    }
    printf("{\"vector_bits\": %d, \"fma_gflops\": [%.1f, %.1f], \"copy_gb_per_s\": [%.2f, %.2f]}\n", 32 * LANES,
           rate(multiply_adds, 1), rate(multiply_adds, 2), rate(copies, 1), rate(copies, 2));
    return 0;
}
