// A program: operations on buffers, prepared once, executed by all threads of the pool in one call.
// Knows no model, no file, no request (those live in TypeScript).
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace farthing {

// Matches DTYPES in src/backend/graph.ts. Packed formats are described in kernels/pack.h.
enum class DType : int32_t { F32, I32, BF16, F16, FP8, PackedF32, PackedBF16, PackedFP8, PackedFP4 };

constexpr int kAxes = 3;  // token, logit, sequence: lengths known only at run time

// A matrix in memory. rows = times * length(axis), or times where the axis is fixed (-1).
// For packed weights rows is the number of outputs n and cols the depth k of the product.
struct View {
  void* data = nullptr;            // null: operand absent
  const float* scales = nullptr;   // FP8: [ceil(rows/128), ceil(cols/128)]; packed FP4: the one that all share
  int64_t stride = 0;              // elements from one row to the next
  int32_t cols = 0;
  int32_t axis = -1;
  int32_t times = 0;
  DType dtype = DType::F32;

  int64_t rows(const int64_t* lengths) const { return axis < 0 ? times : times * lengths[axis]; }
  float* f32(int64_t row = 0) const { return static_cast<float*>(data) + row * stride; }
  int32_t* i32(int64_t row = 0) const { return static_cast<int32_t*>(data) + row * stride; }
  uint16_t* bf16(int64_t row = 0) const { return static_cast<uint16_t*>(data) + row * stride; }
  uint8_t* u8(int64_t row = 0) const { return static_cast<uint8_t*>(data) + row * stride; }
};

struct Context;
struct Op;
using Kernel = void (*)(const Op&, const Context&);

// Where a thread begins to read the weights of `op`, if it reads them as one stream and that is known while `present` runs;
// else null.
using Reading = const uint8_t* (*)(const Op& op, const Context&, const Op& present);

constexpr int kPhases = 4;  // most phases (barrier-separated parts) in one kernel

struct Op {
  Kernel kernel = nullptr;
  Reading reading = nullptr;
  bool meets = true;           // threads wait for each other before it
  std::vector<View> views;     // what is written first, then what is read
  std::vector<double> scalars;
  mutable std::atomic<int64_t> next[kPhases] = {};  // work items claimed so far, one counter a phase
  Op() = default;
  Op(Op&& other) noexcept
      : kernel(other.kernel), reading(other.reading), meets(other.meets), views(std::move(other.views)), scalars(std::move(other.scalars)) {}
};

class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads), waiting_(0), generation_(0) {}
  void wait();

 private:
  const int threads_;
  std::atomic<int> waiting_;
  std::atomic<uint32_t> generation_;
  std::atomic<int> sleeping_ = 0;  // threads that gave up spinning; guarded by mutex_ when raised
  std::mutex mutex_;
  std::condition_variable wake_;
};

// What one thread knows while it executes one op. Every thread of the pool calls the kernel.
struct Context {
  const int64_t* lengths;  // run-time length of each axis
  int thread;
  int threads;
  Barrier* gate;
  std::vector<uint8_t>* scratch;  // this thread's, grown once, kept
  const Op* reader;               // the next op that may read weights as a stream, or null
  mutable int phase = 0;

  int64_t rows(const View& v) const { return v.rows(lengths); }

  // Calls work(first, last) over [0, items) in pieces of `grain`; threads claim pieces as they come free.
  // Which thread computes an item never changes its result: an item owns its output elements.
  template <class Work>
  void parallel(const Op& op, int64_t items, int64_t grain, Work work) const {
    std::atomic<int64_t>& next = op.next[phase];
    for (;;) {
      const int64_t first = next.fetch_add(grain, std::memory_order_relaxed);
      if (first >= items) return;
      work(first, first + grain < items ? first + grain : items);
    }
  }

  // Ends a phase: all threads have finished what came before.
  void barrier() const {
    gate->wait();
    ++phase;
  }

  // 64-byte aligned memory of this thread, valid until its next call of local().
  template <class T>
  T* local(size_t count) const {
    const size_t bytes = count * sizeof(T) + 64;
    if (scratch->size() < bytes) scratch->resize(bytes);
    const auto address = reinterpret_cast<uintptr_t>(scratch->data());
    return reinterpret_cast<T*>((address + 63) & ~uintptr_t{63});
  }
};

struct KernelEntry {
  const char* name;
  Kernel kernel;
  Reading reading = nullptr;
};

// The kernels of one instruction set, ended by a null name.
const KernelEntry* kernels_plain();
const KernelEntry* kernels_avx2();
const KernelEntry* kernels_avx512();
const KernelEntry* kernels_amx();

// When a thread began and ended its part of an op, in seconds from the start of the program.
struct OpTime {
  double start, end;
};
using OpTimes = std::vector<OpTime>;  // [ops, threads]

// A run of a program: its ops in order, with a barrier before those that need one, and at the end.
struct Part {
  const std::vector<Op>* ops;
  std::array<int64_t, kAxes> lengths;
};

// Programs that run one after another in one parallel region.
struct Job {
  std::vector<Part> parts;
  OpTimes* times;              // of the first part, unless null
  std::function<void()> done;  // called by a thread of the pool
};

// Runs the job when those before it are done; returns at once.
void start(Job job);

// Returns when no job is left.
void drain();

// Threads of the pool. Waits for the jobs there are.
void set_threads(int threads);

}  // namespace farthing
