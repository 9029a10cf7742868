# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash

# nginx_configuration FILE RUN ROOT PORT: a configuration of ../conf as one worker
# wants it. Its words are those of macro/servers.py.
nginx_configuration() {
  sed -e "s|@RUN@|$2|" -e "s|@ROOT@|$3|" -e "s|@PORT@|$4|" -e "s|@WORKERS@|1|" \
    -e "s|@NOFILE@|4096|" -e "s|@CONNECTIONS@|1024|" -e "s|@AFFINITY@||" \
    -e "s|@ACCESS_LOG@|off|" "$1"
}
