// Node-API face of the backend: buffers, file mappings, programs. Arguments come from src/backend/native.ts alone,
// which has checked them; what is checked again here is what could corrupt memory.
#include <node_api.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <set>
#include <string>

#include "program.h"

namespace {

using namespace farthing;

struct Failure {
  std::string message;
};

void check(napi_env env, napi_status status) {
  if (status == napi_ok) return;
  const napi_extended_error_info* info = nullptr;
  napi_get_last_error_info(env, &info);
  throw Failure{info && info->error_message ? info->error_message : "Node-API call failed"};
}

// Turns a C++ failure into a JavaScript exception.
template <class Body>
napi_value guarded(napi_env env, Body body) {
  try {
    return body();
  } catch (const Failure& failure) {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    if (!pending) napi_throw_error(env, nullptr, failure.message.c_str());
    return nullptr;
  }
}

// Handles made while it lives are given up when it ends, also when that is by a failure.
struct HandleScope {
  explicit HandleScope(napi_env env) : env(env) { check(env, napi_open_handle_scope(env, &scope)); }
  HandleScope(const HandleScope&) = delete;
  ~HandleScope() { napi_close_handle_scope(env, scope); }
  napi_env env;
  napi_handle_scope scope = nullptr;
};

template <size_t N>
void arguments(napi_env env, napi_callback_info info, napi_value (&values)[N]) {
  size_t count = N;
  check(env, napi_get_cb_info(env, info, &count, values, nullptr, nullptr));
  if (count < N) throw Failure{"too few arguments"};
}

std::string text(napi_env env, napi_value value) {
  size_t length = 0;
  check(env, napi_get_value_string_utf8(env, value, nullptr, 0, &length));
  std::string result(length, '\0');
  check(env, napi_get_value_string_utf8(env, value, result.data(), length + 1, &length));
  return result;
}

int64_t integer(napi_env env, napi_value value) {
  int64_t result = 0;
  check(env, napi_get_value_int64(env, value, &result));
  return result;
}

napi_value property(napi_env env, napi_value object, const char* name) {
  napi_value value;
  check(env, napi_get_named_property(env, object, name, &value));
  return value;
}

napi_value element(napi_env env, napi_value array, uint32_t index) {
  napi_value value;
  check(env, napi_get_element(env, array, index, &value));
  return value;
}

uint32_t length(napi_env env, napi_value array) {
  uint32_t count = 0;
  check(env, napi_get_array_length(env, array, &count));
  return count;
}

struct Mapping {
  void* address;
  size_t bytes;
};

std::set<void*> mapped_files;  // where they begin; used by the JavaScript thread alone

void unmap(napi_env, void*, void* hint) {
  auto* mapping = static_cast<Mapping*>(hint);
  mapped_files.erase(mapping->address);
  munmap(mapping->address, mapping->bytes);
  delete mapping;
}

napi_value as_array_buffer(napi_env env, void* address, size_t bytes) {
  napi_value result;
  check(env, napi_create_external_arraybuffer(env, address, bytes, unmap, new Mapping{address, bytes}, &result));
  return result;
}

// allocate(bytes): zeroed, page-aligned memory outside the JavaScript heap, in large pages where the system has them.
napi_value allocate(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value args[1];
    arguments(env, info, args);
    const int64_t bytes = integer(env, args[0]);
    if (bytes <= 0) throw Failure{"allocate: bytes must be positive"};
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) throw Failure{"out of memory: " + std::to_string(bytes) + " bytes wanted"};
#ifdef MADV_HUGEPAGE
    if (bytes >= (4 << 20)) madvise(address, bytes, MADV_HUGEPAGE);
#endif
    return as_array_buffer(env, address, bytes);
  });
}

// mapFile(path, byteOffset, bytes): that part of the file, mapped privately (writes never reach the file). The offset is
// a multiple of the page size. No memory is set aside for it, so a file may be larger than what the machine has.
napi_value map_file(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value args[3];
    arguments(env, info, args);
    const std::string path = text(env, args[0]);
    const int64_t offset = integer(env, args[1]);
    const int64_t bytes = integer(env, args[2]);
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw Failure{path + ": " + std::strerror(errno)};
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
      close(file);
      throw Failure{path + ": not a regular file"};
    }
    if (offset < 0 || bytes <= 0 || offset > status.st_size || bytes > status.st_size - offset) {
      close(file);
      throw Failure{path + ": has " + std::to_string(status.st_size) + " bytes, expected " + std::to_string(bytes) +
                    " from " + std::to_string(offset)};
    }
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, offset);
    const int problem = errno;
    close(file);
    if (address == MAP_FAILED) throw Failure{path + ": " + std::strerror(problem)};
    mapped_files.insert(address);
    return as_array_buffer(env, address, bytes);
  });
}

// adviseMapped(buffer, byteOffset, bytes, soon): begins to read those pages of a mapped file; or, where they are not
// needed soon, gives back their memory. They stay readable: the next look reads them from the file again.
napi_value advise_mapped(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    napi_value args[4];
    arguments(env, info, args);
    void* start = nullptr;
    size_t size = 0;
    check(env, napi_get_arraybuffer_info(env, args[0], &start, &size));
    if (!mapped_files.contains(start)) throw Failure{"the buffer is not a mapped file"};
    const int64_t offset = integer(env, args[1]), bytes = integer(env, args[2]);
    if (offset < 0 || bytes < 0 || static_cast<size_t>(offset + bytes) > size) throw Failure{"a range beyond the mapped file"};
    const int64_t page = sysconf(_SC_PAGESIZE), first = offset / page * page;
    bool soon = false;
    check(env, napi_get_value_bool(env, args[3], &soon));
    madvise(static_cast<uint8_t*>(start) + first, offset + bytes - first, soon ? MADV_WILLNEED : MADV_DONTNEED);
    return nullptr;
  });
}

struct Program {
  std::vector<Op> ops;
  OpTimes times;                  // of the last profiled run
  std::vector<napi_ref> buffers;  // keeps the memory alive that the views point into
  bool running = false;
};

const KernelEntry* kernel_table = nullptr;

const KernelEntry& find_kernel(const std::string& name) {
  for (const KernelEntry* entry = kernel_table; entry->name; ++entry)
    if (name == entry->name) return *entry;
  throw Failure{"unknown kernel \"" + name + "\""};
}

// The address of `bytes` bytes from `offset` in an ArrayBuffer, checked to lie inside it.
void* inside(napi_env env, napi_value buffer, int64_t offset, int64_t bytes) {
  void* data = nullptr;
  size_t size = 0;
  check(env, napi_get_arraybuffer_info(env, buffer, &data, &size));
  if (offset < 0 || bytes < 0 || static_cast<size_t>(offset + bytes) > size)
    throw Failure{"view of " + std::to_string(bytes) + " bytes at " + std::to_string(offset) + " exceeds its buffer of " +
                  std::to_string(size)};
  return static_cast<uint8_t*>(data) + offset;
}

View parse_view(napi_env env, napi_value value) {
  napi_valuetype type;
  check(env, napi_typeof(env, value, &type));
  if (type == napi_null) return View{};
  View view;
  const auto number = [&](const char* name) { return integer(env, property(env, value, name)); };
  view.data = inside(env, property(env, value, "buffer"), number("byteOffset"), number("bytes"));
  view.stride = number("stride");
  view.cols = static_cast<int32_t>(number("cols"));
  view.axis = static_cast<int32_t>(number("axis"));
  view.times = static_cast<int32_t>(number("times"));
  view.dtype = static_cast<DType>(number("dtype"));
  const napi_value scales = property(env, value, "scales");
  check(env, napi_typeof(env, scales, &type));
  if (type == napi_object) {
    const auto scale_number = [&](const char* name) { return integer(env, property(env, scales, name)); };
    view.scales = static_cast<const float*>(
        inside(env, property(env, scales, "buffer"), scale_number("byteOffset"), scale_number("bytes")));
  }
  return view;
}

void free_program(napi_env env, void* data, void*) {
  auto* program = static_cast<Program*>(data);
  for (napi_ref ref : program->buffers) napi_delete_reference(env, ref);
  delete program;
}

// createProgram(ops, buffers): see PreparedOp in src/backend/native.ts.
napi_value create_program(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value args[2];
    arguments(env, info, args);
    auto program = std::make_unique<Program>();
    const uint32_t ops = length(env, args[0]);
    for (uint32_t i = 0; i < ops; ++i) {
      const HandleScope scope(env);
      const napi_value source = element(env, args[0], i);
      Op op;
      const KernelEntry& entry = find_kernel(text(env, property(env, source, "kernel")));
      op.kernel = entry.kernel;
      op.reading = entry.reading;
      check(env, napi_get_value_bool(env, property(env, source, "meets"), &op.meets));
      const napi_value views = property(env, source, "views");
      for (uint32_t v = 0, n = length(env, views); v < n; ++v) op.views.push_back(parse_view(env, element(env, views, v)));
      const napi_value scalars = property(env, source, "scalars");
      for (uint32_t s = 0, n = length(env, scalars); s < n; ++s) {
        double scalar = 0;
        check(env, napi_get_value_double(env, element(env, scalars, s), &scalar));
        op.scalars.push_back(scalar);
      }
      program->ops.push_back(std::move(op));
    }
    for (uint32_t b = 0, n = length(env, args[1]); b < n; ++b) {
      napi_ref ref;
      check(env, napi_create_reference(env, element(env, args[1], b), 1, &ref));
      program->buffers.push_back(ref);
    }
    napi_value result;
    check(env, napi_create_external(env, program.release(), free_program, nullptr, &result));
    return result;
  });
}

struct Run {
  std::vector<Program*> programs;
  bool profile;
  napi_deferred deferred;
  std::vector<napi_ref> keep;  // the programs, while they run
};

// What brings finished runs back to the JavaScript thread; it keeps the process alive while there are any.
struct Finished {
  napi_threadsafe_function call = nullptr;
  int awaited = 0;
};

void finish(napi_env env, napi_value, void* context, void* data) {
  const std::unique_ptr<Run> run(static_cast<Run*>(data));
  if (!env) return;  // it is being torn down
  auto* finished = static_cast<Finished*>(context);
  if (--finished->awaited == 0) napi_unref_threadsafe_function(env, finished->call);
  for (Program* program : run->programs) program->running = false;
  napi_value result;
  if (run->profile) {
    const OpTimes& measured = run->programs[0]->times;
    const size_t bytes = measured.size() * sizeof(OpTime);
    void* times = nullptr;
    napi_create_arraybuffer(env, bytes, &times, &result);
    std::memcpy(times, measured.data(), bytes);
  } else {
    napi_get_undefined(env, &result);
  }
  napi_resolve_deferred(env, run->deferred, result);
  for (napi_ref program : run->keep) napi_delete_reference(env, program);
}

// runPrograms(programs, lengths of each, profile): a promise, kept when all have run, one after another; if profiled, of an
// ArrayBuffer of f64 [ops of the first, threads, 2]: when each thread began and ended its part. The event loop stays free.
napi_value run_programs(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value args[3];
    arguments(env, info, args);
    auto run = std::make_unique<Run>();
    check(env, napi_get_value_bool(env, args[2], &run->profile));
    Job job;
    for (uint32_t i = 0, n = length(env, args[0]); i < n; ++i) {
      Program* program = nullptr;
      check(env, napi_get_value_external(env, element(env, args[0], i), reinterpret_cast<void**>(&program)));
      if (program->running) throw Failure{"the program is already running"};
      run->programs.push_back(program);
      const napi_value lengths = element(env, args[1], i);
      job.parts.push_back({&program->ops, {}});
      for (uint32_t axis = 0; axis < kAxes; ++axis) job.parts[i].lengths[axis] = integer(env, element(env, lengths, axis));
    }
    if (job.parts.empty()) throw Failure{"no program to run"};
    Finished* finished = nullptr;
    check(env, napi_get_instance_data(env, reinterpret_cast<void**>(&finished)));
    napi_value promise;
    check(env, napi_create_promise(env, &run->deferred, &promise));
    for (uint32_t i = 0; i < run->programs.size(); ++i) {
      run->keep.push_back(nullptr);
      check(env, napi_create_reference(env, element(env, args[0], i), 1, &run->keep.back()));
    }
    for (Program* program : run->programs) program->running = true;
    if (finished->awaited++ == 0) napi_ref_threadsafe_function(env, finished->call);
    job.times = run->profile ? &run->programs[0]->times : nullptr;
    job.done = [call = finished->call, run = run.release()] { napi_call_threadsafe_function(call, run, napi_tsfn_blocking); };
    start(std::move(job));
    return promise;
  });
}

napi_value set_thread_count(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    napi_value args[1];
    arguments(env, info, args);
    const int64_t count = integer(env, args[0]);
    if (count < 1 || count > 1024) throw Failure{"threads must be 1 to 1024, found " + std::to_string(count)};
    set_threads(static_cast<int>(count));
    return nullptr;
  });
}

// peakBytes(): the most memory this process has held, in bytes.
napi_value peak_bytes(napi_env env, napi_callback_info) {
  return guarded(env, [&] {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    napi_value result;
    check(env, napi_create_double(env, usage.ru_maxrss * 1024.0, &result));
    return result;
  });
}

struct InstructionSet {
  const char* name;
  const KernelEntry* (*table)();
  bool (*supported)();
};

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("gfni");
}

// The registers of the matrix unit are saved only for processes that have asked for them.
bool may_use_amx() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return has_avx512() && __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

const InstructionSet instruction_sets[] = {
#if defined(__x86_64__)
    {"amx", kernels_amx, may_use_amx},
    {"avx512", kernels_avx512, has_avx512},
    {"avx2", kernels_avx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {"plain", kernels_plain, [] { return true; }},
};

// useInstructionSet(name | ""): chooses the kernels, the best this processor has if the name is empty; returns the name.
napi_value use_instruction_set(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value args[1];
    arguments(env, info, args);
    const std::string wanted = text(env, args[0]);
    for (const InstructionSet& set : instruction_sets) {
      if (!wanted.empty() && wanted != set.name) continue;
      if (set.supported()) {
        kernel_table = set.table();
        napi_value result;
        check(env, napi_create_string_utf8(env, set.name, NAPI_AUTO_LENGTH, &result));
        return result;
      }
      if (!wanted.empty()) throw Failure{"this processor has no " + wanted};
    }
    throw Failure{"unknown instruction set \"" + wanted + "\": expected amx, avx512, avx2 or plain"};
  });
}

}  // namespace

NAPI_MODULE_INIT() {
  auto* finished = new Finished;
  napi_value name;
  napi_create_string_utf8(env, "farthing.run", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, finished, finish, &finished->call);
  napi_unref_threadsafe_function(env, finished->call);
  napi_set_instance_data(env, finished, [](napi_env, void* data, void*) { delete static_cast<Finished*>(data); }, nullptr);
  napi_add_env_cleanup_hook(env, [](void*) { drain(); }, nullptr);  // before the memory goes that programs use
  const napi_property_descriptor functions[] = {
      {"allocate", nullptr, allocate, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"mapFile", nullptr, map_file, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"adviseMapped", nullptr, advise_mapped, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"createProgram", nullptr, create_program, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"runPrograms", nullptr, run_programs, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"setThreads", nullptr, set_thread_count, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"peakBytes", nullptr, peak_bytes, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"useInstructionSet", nullptr, use_instruction_set, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
  return exports;
}
