// The persistent thread pool: the calling thread is thread 0, the others sleep between programs.
#include <chrono>
#include <memory>
#include <thread>

#include "program.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CPU_RELAX() _mm_pause()
#else
#define CPU_RELAX() std::this_thread::yield()
#endif

namespace farthing {

namespace {

// Spinning is cheaper than sleeping for the microseconds between two ops, or two steps; after that the thread sleeps until it is
// woken, so on a crowded machine the one we wait for gets the core.
constexpr int kSpins = 2000;

}  // namespace

void Barrier::wait() {
  const uint32_t generation = generation_.load(std::memory_order_acquire);
  if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    waiting_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1);
    if (sleeping_.load() > 0) {
      std::lock_guard lock(mutex_);
      wake_.notify_all();
    }
    return;
  }
  for (int spins = 0; spins < kSpins; ++spins) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    CPU_RELAX();
  }
  std::unique_lock lock(mutex_);
  ++sleeping_;
  wake_.wait(lock, [&] { return generation_.load() != generation; });
  --sleeping_;
}

namespace {

using Clock = std::chrono::steady_clock;

class Pool {
 public:
  explicit Pool(int threads) : threads_(threads), gate_(threads), scratch_(threads) {
    for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      ++started_;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int threads() const { return threads_; }

  void run(const std::vector<Op>& ops, const int64_t* lengths, OpTimes* times) {
    {
      std::lock_guard lock(mutex_);
      ops_ = &ops;
      lengths_ = lengths;
      times_ = times;
      begin_ = Clock::now();
      ++started_;
    }
    wake_.notify_all();
    execute_as(0);
  }

 private:
  void work(int thread) {
    uint64_t seen = 0;
    for (;;) {
      for (int spins = 0; spins < kSpins && started_.load(std::memory_order_acquire) == seen; ++spins) CPU_RELAX();
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return started_ != seen; });
        seen = started_;
        if (stopping_) return;
      }
      execute_as(thread);
    }
  }

  void execute_as(int thread) {
    const auto now = [&] { return std::chrono::duration<double>(Clock::now() - begin_).count(); };
    size_t at = 0;
    for (const Op& op : *ops_) {
      const Context context{lengths_, thread, threads_, &gate_, &scratch_[thread]};
      const double start = times_ ? now() : 0;
      op.kernel(op, context);
      if (times_) (*times_)[at++ * threads_ + thread] = {start, now()};
      gate_.wait();
    }
  }

  const int threads_;
  Barrier gate_;
  std::vector<std::vector<uint8_t>> scratch_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> started_ = 0;
  bool stopping_ = false;
  const std::vector<Op>* ops_ = nullptr;
  const int64_t* lengths_ = nullptr;
  OpTimes* times_ = nullptr;
  Clock::time_point begin_;
};

std::mutex pool_mutex;
std::unique_ptr<Pool> pool;

}  // namespace

void execute(const std::vector<Op>& ops, const int64_t (&lengths)[kAxes], OpTimes* times) {
  std::lock_guard lock(pool_mutex);  // programs run one after another
  if (!pool) pool = std::make_unique<Pool>(1);
  for (const Op& op : ops)
    for (auto& next : op.next) next.store(0, std::memory_order_relaxed);
  if (times) times->resize(ops.size() * pool->threads());
  pool->run(ops, lengths, times);
}

void set_threads(int threads) {
  std::lock_guard lock(pool_mutex);
  if (pool && pool->threads() == threads) return;
  pool.reset();
  pool = std::make_unique<Pool>(threads);
}

int threads() {
  std::lock_guard lock(pool_mutex);
  return pool ? pool->threads() : 1;
}

}  // namespace farthing
