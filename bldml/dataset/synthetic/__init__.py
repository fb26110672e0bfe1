"""Drawn beech leaves."""
