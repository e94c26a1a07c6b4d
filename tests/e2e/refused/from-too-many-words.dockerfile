FROM scratch AS base image
