// Threads under load: a mutex and condition variable queue, barriers, thread-local storage, thousands of short-lived
// threads. Prints sums that must be the same on every kernel.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { kThreads = 16, kItems = 20000, kRounds = 200, kShort = 1000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, drained = PTHREAD_COND_INITIALIZER;
static int queue[64], head, tail, closed;
static long consumed;
static pthread_barrier_t barrier;
static long rounds[kThreads];
static __thread long local;

static void *Consume(void *arg) {
  (void)arg;
  for (;;) {
    pthread_mutex_lock(&lock);
    while (head == tail && !closed) pthread_cond_wait(&filled, &lock);
    if (head == tail) {
      pthread_mutex_unlock(&lock);
      return NULL;
    }
    consumed += queue[head++ % 64];
    pthread_cond_signal(&drained);
    pthread_mutex_unlock(&lock);
  }
}

static void *Rounds(void *arg) {
  const long id = (long)arg;
  for (int i = 0; i < kRounds; i++) {
    local += id;
    pthread_barrier_wait(&barrier);
  }
  rounds[id] = local;
  return NULL;
}

static void *Short(void *arg) {
  local += (long)arg;
  return (void *)local;
}

int main(void) {
  pthread_t t[kThreads];
  for (int i = 0; i < kThreads; i++) pthread_create(&t[i], NULL, Consume, NULL);
  for (int i = 0; i < kItems; i++) {
    pthread_mutex_lock(&lock);
    while (tail - head == 64) pthread_cond_wait(&drained, &lock);
    queue[tail++ % 64] = i;
    pthread_cond_signal(&filled);
    pthread_mutex_unlock(&lock);
  }
  pthread_mutex_lock(&lock);
  closed = 1;
  pthread_cond_broadcast(&filled);
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < kThreads; i++) pthread_join(t[i], NULL);
  printf("queue %ld\n", consumed);

  pthread_barrier_init(&barrier, NULL, kThreads);
  for (long i = 0; i < kThreads; i++) pthread_create(&t[i], NULL, Rounds, (void *)i);
  long sum = 0;
  for (int i = 0; i < kThreads; i++) {
    pthread_join(t[i], NULL);
    sum += rounds[i];
  }
  printf("rounds %ld\n", sum);

  sum = 0;
  for (long i = 0; i < kShort; i++) {
    pthread_t s;
    void *result;
    if (pthread_create(&s, NULL, Short, (void *)i) != 0) return 1;
    pthread_join(s, &result);
    sum += (long)result;
  }
  printf("short %ld\n", sum);
  return 0;
}
