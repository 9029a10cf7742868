// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_STATS_HTTP_COUNTERS_H_
#define SERVER_STATS_HTTP_COUNTERS_H_

#include "server/stats/counters.h"
#include "server/stats/histogram.h"

namespace kevent::stats {

struct HttpCounters {
  Counter accepted;         // connections
  Counter connections;      // open now
  Counter accept_failures;  // ends of accepting, such as EMFILE
  Counter requests;         // answered
  Counter by_class[6];      // [2] counts 2xx, and so on; [0] any other
  Counter bytes_sent;       // responses, heads included
  Counter aborted;          // responses that did not go out in full
  Counter timeouts;         // connections ended by one
  Histogram latency;
  // From the turn of the loop that brought the last byte of a request's head
  // until all of the response was handed to the kernel; of every response.
};
// One of these for each worker. Any thread may read.

}  // namespace kevent::stats

#endif  // SERVER_STATS_HTTP_COUNTERS_H_
