#!/bin/sh
# Print new secrets as lines NAME=value: for compose's .env, systemd's EnvironmentFile, or kubectl create secret.
# It needs nothing but od, tr and base64. Keep what it prints: without HURLBAT_SECRET_KEY the stored secrets are lost.
set -eu

hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

echo "HURLBAT_API_TOKEN=$(hex 24)"
# a Fernet key: 32 bytes in the base64 of URLs
echo "HURLBAT_SECRET_KEY=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')"
echo "HURLBAT_SIGNING_SECRET=whsec_$(head -c 32 /dev/urandom | base64)"
echo "POSTGRES_PASSWORD=$(hex 16)"
