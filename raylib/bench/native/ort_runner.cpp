// Runs an exported graph through ONNX Runtime's C API: what the benchmark calls "ort-native".
//
// The wheel of onnxruntime ships its library without headers, and hardly a machine has them. What is needed of them is
// declared here: OrtApi is a table of functions whose order is part of the ABI, and is only ever added to
// (https://onnxruntime.ai/docs/reference/compatibility.html). `Slot` counts places in that table, as
// include/onnxruntime/core/session/onnxruntime_c_api.h lists them.
//
// Functions below give nullptr, or an error's text that `raylib_free` takes. A session may be run by several threads.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

// Types that are only pointed to.
struct Api;
struct Status;
struct Env;
struct Options;
struct Session;
struct Value;
struct Memory;
struct Allocator;
struct Info;

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

constexpr uint32_t kApiVersion = 17;  // older than any library that the extra "onnx" installs
constexpr int kWarning = 2, kError = 3;
constexpr int kFloat = 1;                        // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
constexpr int kArena = 1, kDefaultMemory = 0;    // OrtArenaAllocator, OrtMemTypeDefault

enum Slot : size_t {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSession = 7,
  kRun = 9,
  kCreateSessionOptions = 10,
  kSetSessionLogSeverityLevel = 22,
  kSetIntraOpNumThreads = 24,
  kSetInterOpNumThreads = 25,
  kSessionGetInputCount = 30,
  kSessionGetInputName = 36,
  kSessionGetOutputName = 37,
  kCreateTensorWithDataAsOrtValue = 49,
  kGetTensorMutableData = 51,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kCreateCpuMemoryInfo = 69,
  kGetAllocatorWithDefaultOptions = 78,
  kReleaseStatus = 93,
  kReleaseMemoryInfo = 94,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseTensorTypeAndShapeInfo = 99,
  kReleaseSessionOptions = 100,
  kAddSessionConfigEntry = 130,
};

const Api* api = nullptr;
Env* env = nullptr;  // one a process, and as long as it

template <typename... Arguments>
Status* call(Slot slot, Arguments... arguments) {
  using Function = Status* (*)(Arguments...);
  return reinterpret_cast<Function*>(const_cast<Api*>(api))[slot](arguments...);
}

void release(Slot slot, void* what) {
  using Function = void (*)(void*);
  if (what != nullptr) reinterpret_cast<Function*>(const_cast<Api*>(api))[slot](what);
}

char* copied(const char* text) { return strdup(text); }

// The text of a failed call; nullptr for one that went well.
char* failure(Status* status) {
  if (status == nullptr) return nullptr;
  using Function = const char* (*)(const Status*);
  char* text = copied(reinterpret_cast<Function*>(const_cast<Api*>(api))[kGetErrorMessage](status));
  release(kReleaseStatus, status);
  return text;
}

struct Loaded {
  Session* session = nullptr;
  Memory* memory = nullptr;
  std::vector<std::string> inputs;
  std::string output;

  ~Loaded() {
    release(kReleaseSession, session);
    release(kReleaseMemoryInfo, memory);
  }
};

#define TRY(expression)                                  \
  do {                                                   \
    if (char* error = failure(expression)) return error; \
  } while (false)

char* configure(Options* options, int threads) {
  TRY(call(kSetIntraOpNumThreads, options, threads));
  TRY(call(kSetInterOpNumThreads, options, 1));
  TRY(call(kSetSessionLogSeverityLevel, options, kError));
  // As in raylib's Python sessions: threads that wait in a loop take the cores of others.
  TRY(call(kAddSessionConfigEntry, options, "session.intra_op.allow_spinning", "0"));
  return nullptr;
}

char* read_names(Loaded* loaded) {
  Allocator* allocator = nullptr;  // onnxruntime's own, never to be released; names are few, and stay with it
  TRY(call(kGetAllocatorWithDefaultOptions, &allocator));
  size_t count = 0;
  TRY(call(kSessionGetInputCount, static_cast<const Session*>(loaded->session), &count));
  for (size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    TRY(call(kSessionGetInputName, static_cast<const Session*>(loaded->session), i, allocator, &name));
    loaded->inputs.emplace_back(name);
  }
  char* name = nullptr;
  TRY(call(kSessionGetOutputName, static_cast<const Session*>(loaded->session), size_t{0}, allocator, &name));
  loaded->output = name;
  return nullptr;
}

char* open(Loaded* loaded, const char* path, int threads) {
  if (env == nullptr) TRY(call(kCreateEnv, kWarning, "raylib", &env));
  Options* options = nullptr;
  TRY(call(kCreateSessionOptions, &options));
  char* error = configure(options, threads);
  if (error == nullptr) {
    error = failure(call(kCreateSession, static_cast<const Env*>(env), path, static_cast<const Options*>(options),
                         &loaded->session));
  }
  release(kReleaseSessionOptions, options);
  if (error != nullptr) return error;
  TRY(call(kCreateCpuMemoryInfo, kArena, kDefaultMemory, &loaded->memory));
  return read_names(loaded);
}

// The shape of a matrix of float32 and where its numbers are.
char* read_matrix(Value* value, const float** data, int64_t shape[2]) {
  Info* info = nullptr;
  TRY(call(kGetTensorTypeAndShape, static_cast<const Value*>(value), &info));
  int type = 0;
  size_t rank = 0;
  char* error = failure(call(kGetTensorElementType, static_cast<const Info*>(info), &type));
  if (error == nullptr) error = failure(call(kGetDimensionsCount, static_cast<const Info*>(info), &rank));
  if (error == nullptr && (rank != 2 || type != kFloat)) error = copied("the graph gives no matrix of float32");
  if (error == nullptr) error = failure(call(kGetDimensions, static_cast<const Info*>(info), shape, size_t{2}));
  release(kReleaseTensorTypeAndShapeInfo, info);
  if (error != nullptr) return error;
  return failure(call(kGetTensorMutableData, value, reinterpret_cast<void**>(const_cast<float**>(data))));
}

}  // namespace

extern "C" {

void raylib_free(char* text) { std::free(text); }

// get_base: the library's OrtGetApiBase. version: of the library, not to be freed.
char* raylib_start(const ApiBase* (*get_base)(), const char** version) {
  const ApiBase* base = get_base();
  *version = base->get_version();
  api = base->get_api(kApiVersion);
  return api == nullptr ? copied("this onnxruntime is older than 1.17") : nullptr;
}

char* raylib_open(const char* path, int threads, Loaded** out) {
  auto* loaded = new Loaded();
  if (char* error = open(loaded, path, threads)) {
    delete loaded;
    return error;
  }
  *out = loaded;
  return nullptr;
}

void raylib_close(Loaded* loaded) { delete loaded; }

// The name of input i, or nullptr after the last.
const char* raylib_input(const Loaded* loaded, size_t i) {
  return i < loaded->inputs.size() ? loaded->inputs[i].c_str() : nullptr;
}

// One array for each input, in their order: its numbers, bytes, shape, rank and ONNX type. The matrix [shape[0],
// shape[1]] that comes out lies in `value` until `raylib_release`.
char* raylib_run(Loaded* loaded, void** data, const size_t* bytes, const int64_t** shapes, const size_t* ranks,
                 const int* types, Value** value, const float** matrix, int64_t shape[2]) {
  const size_t n = loaded->inputs.size();
  std::vector<Value*> values(n, nullptr);
  std::vector<const char*> names(n);
  char* error = nullptr;
  for (size_t i = 0; i < n && error == nullptr; ++i) {
    names[i] = loaded->inputs[i].c_str();
    error = failure(call(kCreateTensorWithDataAsOrtValue, static_cast<const Memory*>(loaded->memory), data[i], bytes[i],
                         shapes[i], ranks[i], types[i], &values[i]));
  }
  *value = nullptr;
  if (error == nullptr) {
    const char* output = loaded->output.c_str();
    error = failure(call(kRun, loaded->session, static_cast<const void*>(nullptr),
                         static_cast<const char* const*>(names.data()),
                         const_cast<const Value* const*>(values.data()), n, static_cast<const char* const*>(&output),
                         size_t{1}, value));
  }
  for (Value* one : values) release(kReleaseValue, one);
  if (error == nullptr) error = read_matrix(*value, matrix, shape);
  if (error != nullptr) {
    release(kReleaseValue, *value);
    *value = nullptr;
  }
  return error;
}

void raylib_release(Value* value) { release(kReleaseValue, value); }
}
