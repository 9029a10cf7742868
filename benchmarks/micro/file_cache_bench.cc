// SPDX-License-Identifier: Apache-2.0
//
// The open-file cache: what a path costs that is there, that has to be looked
// at again, and that has to be opened.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "server/files/file_cache.h"
#include "server/files/root.h"

namespace kevent::files {
namespace {

namespace fs = std::filesystem;

void Check(bool ok) {
  if (!ok) abort();
}

// Ahead of the files: none counts as changed a moment ago, which would have its
// body compared at each look.
int64_t SettledClock() { return WallClockNs() + 3'600'000'000'000; }

// `files` of so many bytes in folders of 100.
class Tree {
 public:
  Tree(size_t files, size_t bytes) {
    std::string name =
        (fs::temp_directory_path() / "file_cache_bench.XXXXXX").string();
    Check(mkdtemp(name.data()) != nullptr);
    dir_ = name;
    for (size_t i = 0; i < files; ++i) {
      const std::string folder = "folder" + std::to_string(i / 100);
      fs::create_directories(dir_ / folder);
      paths_.push_back(folder + "/file" + std::to_string(i) + ".html");
      std::ofstream(dir_ / paths_.back()) << std::string(bytes, 'x');
    }
    root_ = std::make_unique<Root>(
        *Root::Create(dir_.string(), SymlinkPolicy::kBeneath));
  }
  ~Tree() {
    std::error_code ignored;
    fs::remove_all(dir_, ignored);
  }

  const Root* root() const { return root_.get(); }
  const std::vector<std::string>& paths() const { return paths_; }

 private:
  fs::path dir_;
  std::vector<std::string> paths_;
  std::unique_ptr<Root> root_;
};

FileCache::Options Options(size_t entries) {
  FileCache::Options options;
  options.max_entries = entries;
  options.revalidate_ns = 1'000'000'000;
  options.wall_clock_ns = &SettledClock;
  return options;
}

void MakeHead(Entry&, std::string* head) { head->append(300, 'h'); }

constexpr size_t kSmall = 1000;     // its body is kept in memory
constexpr size_t kLarge = 100'000;  // its descriptor is

void GetAll(FileCache* cache, const Tree& tree, int64_t now) {
  for (const std::string& path : tree.paths()) {
    int error;
    Check(static_cast<bool>(cache->Get(path, now, &error)));
  }
}

// Answered from memory; `range` files in turn.
void BM_Hit(benchmark::State& state) {
  const Tree tree(static_cast<size_t>(state.range(0)), kSmall);
  FileCache cache(tree.root(), nullptr, MakeHead, Options(4096));
  GetAll(&cache, tree, 0);
  size_t at = 0;
  for (auto _ : state) {
    int error;
    EntryRef entry = cache.Get(tree.paths()[at], 1, &error);
    benchmark::DoNotOptimize(entry.get());
    if (++at == tree.paths().size()) at = 0;
  }
  Check(cache.stats().misses == tree.paths().size());
}
BENCHMARK(BM_Hit)->Arg(1)->Arg(1000);

// Looked up again on the disk, and found as it was: each file once a second
// when nothing tells of changes. `range`: its size in bytes.
void BM_Revalidate(benchmark::State& state) {
  const Tree tree(1, static_cast<size_t>(state.range(0)));
  FileCache cache(tree.root(), nullptr, MakeHead, Options(4096));
  GetAll(&cache, tree, 0);
  int64_t now = 0;
  for (auto _ : state) {
    now += 2'000'000'000;
    int error;
    EntryRef entry = cache.Get(tree.paths()[0], now, &error);
    benchmark::DoNotOptimize(entry.get());
  }
  Check(cache.stats().replacements == 0);
}
BENCHMARK(BM_Revalidate)->Arg(kSmall)->Arg(kLarge);

// Opened, its head made, a small file read; and dropped again. `range`: its
// size.
void BM_Miss(benchmark::State& state) {
  const Tree tree(1, static_cast<size_t>(state.range(0)));
  FileCache cache(tree.root(), nullptr, MakeHead, Options(4096));
  GetAll(&cache, tree, 0);  // it is in the page cache now
  for (auto _ : state) {
    cache.PurgeAll();
    int error;
    EntryRef entry = cache.Get(tree.paths()[0], 1, &error);
    benchmark::DoNotOptimize(entry.get());
  }
  Check(cache.stats().hits == 0);
}
BENCHMARK(BM_Miss)->Arg(kSmall)->Arg(kLarge);

// More files than there is room for, in turn: each makes room for the next.
void BM_Evict(benchmark::State& state) {
  const Tree tree(1000, kSmall);
  FileCache cache(tree.root(), nullptr, MakeHead, Options(500));
  size_t at = 0;
  for (auto _ : state) {
    int error;
    EntryRef entry = cache.Get(tree.paths()[at], 1, &error);
    benchmark::DoNotOptimize(entry.get());
    if (++at == tree.paths().size()) at = 0;
  }
}
BENCHMARK(BM_Evict);

// A path that leads to nothing, known already.
void BM_NegativeHit(benchmark::State& state) {
  const Tree tree(1, kSmall);
  FileCache cache(tree.root(), nullptr, MakeHead, Options(4096));
  int error;
  Check(!cache.Get("folder0/no", 0, &error));
  for (auto _ : state) {
    EntryRef entry = cache.Get("folder0/no", 1, &error);
    benchmark::DoNotOptimize(entry.get());
    Check(error < 0);
  }
}
BENCHMARK(BM_NegativeHit);

}  // namespace
}  // namespace kevent::files
