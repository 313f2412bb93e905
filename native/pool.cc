// The persistent thread pool: executes programs one after another, and sleeps when there are none.
#include <chrono>
#include <deque>
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

// A thread that waits for the others spins, since waking it takes longer than most ops. It soon lets others have the core, as the
// one it waits for may need it, and at last it sleeps until it is woken.
constexpr int kSpins = 2000, kSpinsAlone = 128, kSpinsBetweenYields = 16;

// As long a thread looks for the next program: between two steps of an answer a little JavaScript runs.
constexpr auto kBetweenPrograms = std::chrono::microseconds(300);

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
    if (spins >= kSpinsAlone && spins % kSpinsBetweenYields == 0) std::this_thread::yield();
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
    for (int t = 0; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
  }

  ~Pool() {
    drain();
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      ++started_;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int threads() const { return threads_; }

  void start(Job job) {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (jobs_.size() == 1) begin();
  }

  void drain() {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [&] { return jobs_.empty(); });
  }

 private:
  // The first of the jobs is the one that runs.
  void begin() {
    const Job& job = jobs_.front();
    for (const Part& part : job.parts)
      for (const Op& op : *part.ops)
        for (auto& next : op.next) next.store(0, std::memory_order_relaxed);
    if (job.times) job.times->resize(job.parts[0].ops->size() * threads_);
    running_ = &job;
    begin_ = Clock::now();
    ++started_;
    wake_.notify_all();
  }

  void end() {
    running_->done();
    std::lock_guard lock(mutex_);
    jobs_.pop_front();
    if (jobs_.empty()) idle_.notify_all();
    else begin();
  }

  void work(int thread) {
    for (uint64_t seen = 0;; ++seen) {
      const auto until = Clock::now() + kBetweenPrograms;
      while (started_.load(std::memory_order_acquire) == seen && Clock::now() < until) {
        for (int i = 0; i < kSpinsBetweenYields; ++i) CPU_RELAX();
        std::this_thread::yield();
      }
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return started_ != seen; });
        if (stopping_) return;
      }
      execute_as(thread);
      if (thread == 0) end();
    }
  }

  void execute_as(int thread) {
    OpTimes* times = running_->times;
    for (const Part& part : running_->parts) {
      execute_as(thread, part, times);
      times = nullptr;
    }
  }

  void execute_as(int thread, const Part& part, OpTimes* times) {
    const auto now = [&] { return std::chrono::duration<double>(Clock::now() - begin_).count(); };
    size_t at = 0;
    const Op *reader = part.ops->data(), *end = reader + part.ops->size();
    for (const Op& op : *part.ops) {
      while (reader != end && (reader <= &op || !reader->reading)) ++reader;
      const Context context{part.lengths.data(), thread, threads_, &gate_, &scratch_[thread], reader == end ? nullptr : reader};
      if (op.meets) gate_.wait();
      const double start = times ? now() : 0;
      op.kernel(op, context);
      if (times) (*times)[at++ * threads_ + thread] = {start, now()};
    }
    gate_.wait();
  }

  const int threads_;
  Barrier gate_;
  std::vector<std::vector<uint8_t>> scratch_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Job> jobs_;
  const Job* running_ = nullptr;
  std::atomic<uint64_t> started_ = 0;
  bool stopping_ = false;
  Clock::time_point begin_;
};

std::mutex pool_mutex;
std::unique_ptr<Pool> pool;

}  // namespace

void start(Job job) {
  std::lock_guard lock(pool_mutex);
  if (!pool) pool = std::make_unique<Pool>(1);
  pool->start(std::move(job));
}

void drain() {
  std::lock_guard lock(pool_mutex);
  if (pool) pool->drain();
}

void set_threads(int threads) {
  std::lock_guard lock(pool_mutex);
  if (pool && pool->threads() == threads) return;
  pool.reset();
  pool = std::make_unique<Pool>(threads);
}

}  // namespace farthing
